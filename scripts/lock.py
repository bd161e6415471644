"""Pin every dependency, with hashes: pyproject.toml → requirements/*.txt, functions/*/*.txt.

python scripts/lock.py            compile again (needs the package index)
python scripts/lock.py --check    fail if pyproject.toml has changed since (offline)

Each file starts with a digest of the dependencies it was compiled from.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

SETS = (
    {
        Path(f"requirements/{name}.txt"): name
        for name in (
            *("dev", "docs", "local", "auth", "console"),
            *("billing", "billing-archive", "billing-parquet"),
            *("inference", "inference-joblib"),
        )
    }
    | {Path("requirements/trainer.txt"): "boosters"}
    | {
        Path(f"functions/{name}/requirements.txt"): "functions"
        for name in ("on_data_arrival", "on_model_release")
    }
    | {Path("requirements/uv.txt"): "installer"}
)
"""Each file, and the extra of pyproject.toml that it pins. The first one has all packages."""
EVERYTHING = next(iter(SETS))
STANDALONE = ("functions", "installer")
"""Extras that do not include the project's dependencies."""
UV = str(Path(sys.executable).with_name("uv"))
COMPILE = [UV, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate"]
COMPILE += ["--no-header", "--no-strip-extras", "--python-version", "3.11"]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        stale = [str(path) for path in SETS if first_line(path) != digest_line()]
        if stale:
            sys.exit(f"error: stale: {', '.join(stale)}; run make lock")
        return
    for path, extra in SETS.items():
        compile_set(path, extra)


def compile_set(path: Path, extra: str) -> None:
    """Compile one set; the first set constrains the others, so that versions agree."""
    constraints = [] if path == EVERYTHING else ["--constraint", str(EVERYTHING)]
    command = [*COMPILE, *constraints, "--output-file", str(path)]
    if extra in STANDALONE:
        command, inputs = [*command, "-"], "\n".join(project()["optional-dependencies"][extra])
    else:
        command, inputs = [*command, "pyproject.toml", "--extra", extra], ""
    compiled = subprocess.run(command, stdout=subprocess.DEVNULL, input=inputs, text=True)
    if compiled.returncode:
        sys.exit(f"error: {path} could not be compiled")
    path.write_text(f"{digest_line()}\n{path.read_text()}")
    print(f"{path}: {sum(line[:1].isalnum() for line in path.open())} packages")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return table


def digest_line() -> str:
    """Return the first line of a set that is compiled from the current pyproject.toml."""
    inputs = [
        project()[key] for key in ("requires-python", "dependencies", "optional-dependencies")
    ]
    return f"# of pyproject.toml {hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]}"


def first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline().rstrip("\n")


if __name__ == "__main__":
    main()
