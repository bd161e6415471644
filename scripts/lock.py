"""Pin every dependency, with hashes: pyproject.toml → requirements/*.txt.

python scripts/lock.py            compile anew (needs the package index)
python scripts/lock.py --check    fail if pyproject.toml has changed since (offline)

Each file begins with a digest of the dependencies it was compiled from.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path("requirements")
SETS = ["dev", "local", "auth", "billing", "inference", "trainer"]
UV = str(Path(sys.executable).with_name("uv"))
COMPILE = [UV, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate"]
COMPILE += ["--no-header", "--python-version", "3.11", "pyproject.toml"]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        stale = [name for name in SETS if first_line(name) != mark()]
        if stale:
            sys.exit(f"error: requirements/ is stale ({', '.join(stale)}): run make lock")
        return
    for name in SETS:
        compile_set(name)


def compile_set(name: str) -> None:
    """The first set holds every other one, and constrains them: a package has one version."""
    path = FOLDER / f"{name}.txt"
    constraints = [] if name == SETS[0] else ["--constraint", str(FOLDER / f"{SETS[0]}.txt")]
    command = [*COMPILE, "--extra", name, *constraints, "--output-file", str(path)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"error: {path} could not be compiled")
    path.write_text(f"{mark()}\n{path.read_text()}")
    print(f"{path}: {sum(line[:1].isalnum() for line in path.open())} packages")


def mark() -> str:
    """The line that every set compiled from the present pyproject.toml begins with."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [project[key] for key in ("requires-python", "dependencies", "optional-dependencies")]
    return f"# of pyproject.toml {hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]}"


def first_line(name: str) -> str:
    with (FOLDER / f"{name}.txt").open() as file:
        return file.readline().rstrip("\n")


if __name__ == "__main__":
    main()
