"""Install a set of locked requirements, and this checkout, into .venv.

python scripts/install.py local|dev

A pinned, hash-checked uv is installed into .venv first, because it takes a sixth of pip's time. If
uv fails, pip installs the same set. `INSTALLER=pip` skips uv.
"""

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

VENV = Path(".venv")
PYTHON = str(VENV / "bin" / "python")
UV = str(VENV / "bin" / "uv")
PIP = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input"]
REPORT_EVERY_PACKAGES = 20

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "find-links": "UV_FIND_LINKS",
}
"""pip's settings, and the corresponding environment variables of uv."""


def main() -> None:
    set_name = sys.argv[1]
    requirements = Path("requirements") / f"{set_name}.txt"
    packages = sum(line[:1].isalnum() for line in requirements.open())
    if not venv_works():
        create_venv()
    print(f"==> installing {packages} packages", flush=True)
    if os.environ.get("INSTALLER") == "pip" or not install_with_uv(requirements):
        install_with_pip(requirements, packages)
    (VENV / f"{set_name}.stamp").touch()


def venv_works() -> bool:
    """Return whether .venv has a working pip; an upgrade of the system's Python breaks it."""
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([*PIP, "--version"], capture_output=True).returncode == 0


def create_venv() -> None:
    """Create .venv with Python's own pip.

    That is unpacked here where its wheel can be found: venv also compiles it, which takes longer
    than everything that pip is needed for.
    """
    print(f"==> creating .venv with Python {sys.version.split()[0]}", flush=True)
    wheel = find_pip_wheel()
    options = ["--without-pip"] if wheel else []
    venv = [sys.executable, "-m", "venv", "--clear", *options, str(VENV)]
    if subprocess.run(venv, capture_output=True).returncode:
        sys.exit(f"error: {sys.executable} has no working venv (on Debian: python3-venv)")
    if wheel:
        base = {"base": str(VENV), "platbase": str(VENV)}
        with zipfile.ZipFile(wheel) as files:
            files.extractall(sysconfig.get_path("purelib", scheme="venv", vars=base))


def find_pip_wheel() -> Path | None:
    """Return the wheel of pip that comes with Python, in distributions too, or None."""
    try:
        import ensurepip  # Debian leaves it out without python3-venv
    except ImportError:
        return None
    bundled = Path(ensurepip.__file__).with_name("_bundled")
    folder = Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled)
    return max(folder.glob("pip-*.whl"), default=None)


def install_with_uv(requirements: Path) -> bool:
    """Install the set and this checkout; return False if uv cannot."""
    install_uv = [*PIP, "install", "--quiet", "--require-hashes", "-r", "requirements/uv.txt"]
    with subprocess.Popen(install_uv) as installing:
        environment = os.environ | uv_settings()
    if installing.returncode:
        print("    uv is not available; pip takes a few minutes the first time", flush=True)
        return False
    install = [UV, "pip", "install", "--quiet", "--python", PYTHON]
    for arguments in (
        ["--require-hashes", "--requirements", str(requirements)],
        ["--no-deps", "--no-build-isolation", "--editable", "."],
    ):
        if subprocess.run([*install, *arguments], env=environment).returncode:
            print("    uv failed; trying pip", flush=True)
            return False
    return True


def uv_settings() -> dict[str, str]:
    """Return pip's configuration as uv's environment variables.

    uv does not read pip's configuration, which is usually the only one on a machine behind a
    package mirror.
    """
    configuration = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True).stdout
    values: dict[str, str] = {}
    for line in configuration.splitlines():  # global.index-url='…', and :env:.index-url='…' last
        key, _, literal = line.partition("=")
        values[key.rpartition(".")[2]] = str(ast.literal_eval(literal))
    links = [
        link
        for link in values.pop("find-links", "").split()
        if "://" in link or Path(link).is_dir()
    ]
    if links:
        values["find-links"] = ",".join(links)
    return {
        name: " ".join(values[key].split()) for key, name in UV_NAMES.items() if values.get(key)
    }


def install_with_pip(requirements: Path, packages: int) -> None:
    """Install the set and this checkout; print one line for every twenty packages."""
    command = [*PIP, "install", "--progress-bar", "off", "--require-hashes", "-r"]
    with subprocess.Popen([*command, str(requirements)], stdout=subprocess.PIPE, text=True) as pip:
        collected = 0
        for line in pip.stdout or ():
            collected += line.startswith("Collecting ")
            if line.startswith("Collecting ") and collected % REPORT_EVERY_PACKAGES == 0:
                print(f"    {collected} of {packages} fetched", flush=True)
            elif line.startswith("Installing collected packages"):
                print("    unpacking", flush=True)
    editable = [*PIP, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."]
    if pip.returncode or subprocess.run(editable).returncode:
        sys.exit("error: the packages could not be installed; see pip's message above")


if __name__ == "__main__":
    main()
