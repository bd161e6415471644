"""Find out whether a commit requires new images, and which models it requires to be retrained.

python scripts/changes.py images VALUES.json   print images=true or images=false
python scripts/changes.py models [all]         read data folders from stdin; print models=[…]
python scripts/changes.py commit MODEL         print the commit that last changed MODEL's training

All need the full git history.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

MODEL = re.compile(r"(?:.*/)?(?!.*\.\.)([a-z0-9][a-z0-9._-]{0,63})/")
TRAINER = (
    "trainer",
    "registry/datetimes.py",
    "registry/features.py",
    "registry/runtimes/named_table.py",
    "registry/value_rules.py",
    "requirements/trainer.txt",
)
"""The paths that affect every model, besides its own folder models/<model>/."""
ROLLED_OUT = (
    "Dockerfile",
    ".dockerignore",
    "deploy/helm/tollgate",
    ":(exclude)deploy/helm/tollgate/tests",
)
COPIED = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


def main() -> None:
    """Run a subcommand."""
    match sys.argv[1:]:
        case ["images", values]:
            deployed = json.loads(Path(values).read_text() or "{}")
            changed = images_changed((deployed or {}).get("image", {}).get("tag", ""))
            print(f"images={'true' if changed else 'false'}")
        case ["models"]:
            affected = [model for model in read_models() if is_affected(model)]
            print(f"models={json.dumps(affected)}")
        case ["models", "all"]:
            print(f"models={json.dumps(read_models())}")
        case ["commit", model]:
            print(last_change(model))
        case _:
            sys.exit(__doc__)


def read_models() -> list[str]:
    """Return the models among the folders listed on stdin, one per line."""
    matches = (MODEL.fullmatch(line) for line in sys.stdin.read().split("\n"))
    return [match[1] for match in matches if match]


def images_changed(deployed: str) -> bool:
    """Return whether HEAD's images would differ from those of the deployed commit.

    They do not if HEAD is older: CI runs may finish out of order.
    """
    if not is_commit(deployed):
        report(f"the deployed images ({deployed or 'none'}) are not from a commit of this history")
        return True
    if is_ancestor("HEAD", deployed):
        report(f"{deployed} is deployed and includes this commit")
        return False
    changed = git("diff", "--name-only", deployed, "HEAD", "--", *image_inputs()).splitlines()
    report(f"changed since {deployed}: {', '.join(changed[:20]) or 'no image and no chart file'}")
    return bool(changed)


def image_inputs() -> list[str]:
    """Return the paths that the Dockerfile copies, and others that are rolled out with images."""
    lines = COPIED.findall(Path("Dockerfile").read_text())
    copied = [path for line in lines for path in line.split()]
    # `requirements/${INFERENCE}.txt` may be any file of that folder.
    return sorted({*ROLLED_OUT, *(path.partition("/$")[0] for path in copied)})


def is_affected(model: str) -> bool:
    """Return whether a model's training code has changed since its newest version.

    A model without a version that verifies is affected only if it has its own folder here.
    """
    versions = [row for row in tollgate("list", model) if not row["gate"].startswith("refused")]
    if not versions:
        return Path("models", model).is_dir()
    newest = max(row["version"] for row in versions)
    trained = str(tollgate("show", model, "--to", newest)["environment"].get("commit", ""))
    changed = last_change(model)
    if is_commit(trained) and is_ancestor(changed, trained):
        return False
    report(f"{model}: {changed} is newer than version {newest}")
    return True


def last_change(model: str) -> str:
    """Return the last commit that changed a model's training code."""
    return git("log", "-1", "--format=%H", "HEAD", "--", *TRAINER, f"models/{model}").strip()


def is_commit(name: str) -> bool:
    """Return whether the history has a commit with this name."""
    if not re.fullmatch("[0-9a-f]{7,40}", name):
        return False
    return run(["git", "cat-file", "-e", f"{name}^{{commit}}"]).returncode == 0


def is_ancestor(older: str, newer: str) -> bool:
    """Return whether a commit is an ancestor of another one, or the same."""
    return run(["git", "merge-base", "--is-ancestor", older, newer]).returncode == 0


def tollgate(*arguments: str) -> Any:
    """Run `tollgate models …` and return its JSON output."""
    return json.loads(run_or_exit(["tollgate", "models", *arguments, "--json"]))


def git(*arguments: str) -> str:
    return run_or_exit(["git", *arguments])


def run_or_exit(command: list[str]) -> str:
    result = run(command)
    if result.returncode:
        sys.exit(f"error: {' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True)


def report(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
