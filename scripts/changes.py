"""What a commit changes: whether the images have to be built again, and which models trained again.

python scripts/changes.py images VALUES.json   prints images=true or images=false
python scripts/changes.py models [all]         reads folders of data, a line each; prints models=[…]
python scripts/changes.py commit MODEL         prints the commit that last changed MODEL's training

All need the history of the checkout.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

MODEL = re.compile(r"(?:.*/)?(?!.*\.\.)([a-z0-9][a-z0-9._-]{0,63})/")
TRAINER = ("trainer", "requirements/trainer.txt")
"""What every model is trained by; its own folder, models/<model>/, comes on top."""
ROLLED_OUT = ("Dockerfile", ".dockerignore", "deploy/helm/tollgate")
COPIED = re.compile(r"^COPY (?!--from)(\S+) \S+$", re.MULTILINE)


def main() -> None:
    """Run one of the three."""
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
    """The models among the folders of a listing; other folders and objects are no models."""
    found = (MODEL.fullmatch(line) for line in sys.stdin.read().split("\n"))
    return [match[1] for match in found if match]


def images_changed(deployed: str) -> bool:
    """Whether images of HEAD would differ from the deployed ones, which are named by their commit.

    Not if HEAD is the older of the two: the runs of CI may end in another order than they began.
    """
    if not is_commit(deployed):
        say(f"what is deployed ({deployed or 'nothing'}) is no commit of this history")
        return True
    if is_ancestor("HEAD", deployed):
        say(f"{deployed} is deployed, which has all of this commit")
        return False
    changed = git("diff", "--name-only", deployed, "HEAD", "--", *image_inputs()).splitlines()
    say(f"since {deployed}: {', '.join(changed[:20]) or 'no image, nor the chart'}")
    return bool(changed)


def image_inputs() -> list[str]:
    """What the Dockerfile copies from the checkout, and what is rolled out with the images."""
    copied = COPIED.findall(Path("Dockerfile").read_text())
    # `requirements/${INFERENCE}.txt` may be any file of that folder.
    return sorted({*ROLLED_OUT, *(path.partition("/$")[0] for path in copied)})


def is_affected(model: str) -> bool:
    """Whether what a model is trained by has changed since its newest version was trained.

    A model without a version that verifies is affected only if it has a folder of its own here.
    """
    versions = [row for row in tollgate("list", model) if not row["gate"].startswith("refused")]
    if not versions:
        return Path("models", model).is_dir()
    newest = max(row["version"] for row in versions)
    trained = str(tollgate("show", model, "--to", newest)["environment"].get("commit", ""))
    changed = last_change(model)
    if is_commit(trained) and is_ancestor(changed, trained):
        return False
    say(f"{model}: {changed} is newer than version {newest}")
    return True


def last_change(model: str) -> str:
    """The last commit that changed what a model is trained by."""
    return git("log", "-1", "--format=%H", "HEAD", "--", *TRAINER, f"models/{model}").strip()


def is_commit(name: str) -> bool:
    """Whether the history knows a commit by that name."""
    if not re.fullmatch("[0-9a-f]{7,40}", name):
        return False
    return run(["git", "cat-file", "-e", f"{name}^{{commit}}"]).returncode == 0


def is_ancestor(one: str, other: str) -> bool:
    """Whether a commit is another one, or among those that came before it."""
    return run(["git", "merge-base", "--is-ancestor", one, other]).returncode == 0


def tollgate(*arguments: str) -> Any:
    """What `tollgate models …` prints as JSON."""
    return json.loads(checked(["tollgate", "models", *arguments, "--json"]))


def git(*arguments: str) -> str:
    return checked(["git", *arguments])


def checked(command: list[str]) -> str:
    ran = run(command)
    if ran.returncode:
        sys.exit(f"error: {' '.join(command)}: {ran.stderr.strip()}")
    return ran.stdout


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True)


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
