"""Install one set of locked requirements, and this checkout, into .venv.

python scripts/install.py local|dev
"""

import subprocess
import sys
from pathlib import Path

VENV = Path(".venv")
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
TELL_EVERY = 20


def main() -> None:
    chosen = sys.argv[1]
    requirements = Path("requirements") / f"{chosen}.txt"
    if not works():
        make_venv()
    install(requirements)
    run([*PIP, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."])
    (VENV / f"{chosen}.stamp").touch()


def works() -> bool:
    """Whether there is a .venv whose Python still runs (an upgrade of the system's breaks it)."""
    if not (VENV / "bin" / "python").exists():
        return False
    return subprocess.run([*PIP, "--version"], capture_output=True).returncode == 0


def make_venv() -> None:
    print(f"==> making .venv with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], capture_output=True)
    if made.returncode:
        sys.exit(f"error: {sys.executable} has no working venv (on Debian: python3-venv)")


def install(requirements: Path) -> None:
    """pip is told to be hash-strict; its thousand lines become one in twenty packages."""
    names = [line for line in requirements.read_text().splitlines() if line[:1].isalnum()]
    print(f"==> installing {len(names)} packages, some minutes the first time", flush=True)
    command = [*PIP, "install", "--progress-bar", "off", "--require-hashes", "-r"]
    with subprocess.Popen([*command, str(requirements)], stdout=subprocess.PIPE, text=True) as pip:
        collected = 0
        for line in pip.stdout or ():
            collected += line.startswith("Collecting ")
            if line.startswith("Collecting ") and collected % TELL_EVERY == 0:
                print(f"    {collected} of {len(names)} fetched", flush=True)
            elif line.startswith("Installing collected packages"):
                print("    unpacking", flush=True)
    if pip.returncode:
        sys.exit("error: the packages could not be installed; pip's own words are above")


def run(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        sys.exit(f"error: failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
