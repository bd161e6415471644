"""Assemble a self-contained source folder for each function: build/functions/<name>/.

python scripts/functions_build.py build/functions

`main.py` and `requirements.txt` are at the top, where the platform looks for them; everything else
keeps its package, so that imports work the same in the checkout, in the function and in tests.
"""

import shutil
import sys
from pathlib import Path

FUNCTIONS = ("on_data_arrival", "on_model_release")
SHARED = (
    "functions/__init__.py",
    "functions/common",
    "registry/__init__.py",
    "registry/data_names.py",
    "registry/records.py",
    "registry/value_rules.py",
    "services/__init__.py",
    "services/common/__init__.py",
    "services/common/settings.py",
    "services/common/validation.py",
)


def main() -> None:
    for path in build(Path(sys.argv[1])):
        print(path)


def build(folder: Path) -> list[Path]:
    """Create a folder for each function, replacing an existing one."""
    targets = []
    for name in FUNCTIONS:
        target, source = folder / name, Path("functions") / name
        shutil.rmtree(target, ignore_errors=True)
        for path in (*SHARED, f"functions/{name}"):
            copy(Path(path), target / path)
        for at_top in ("main.py", "requirements.txt"):
            (target / source / at_top).rename(target / at_top)
        targets.append(target)
    return targets


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
