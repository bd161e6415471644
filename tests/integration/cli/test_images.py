"""Each image has the commands that can run there, and no command fails on what it lacks."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.costly

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGES = ("auth", "billing", "inference", "trainer")

EVERYWHERE = {"login", "logout", "mcp", "token", "usage"}
COMMANDS = {
    "auth": {"audit", "auth", "users"} | EVERYWHERE,
    "billing": {"billing", "receipts"} | EVERYWHERE,
    "inference": {"billing", "keys", "models", "pipelines"} | EVERYWHERE,
    "trainer": {"keys", "models", "pipelines", "train"} | EVERYWHERE,
}

ONLY_REQUIREMENTS = """
import json, os, re, sys

def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()

required = {"tollgate", *os.environ["REQUIRED"].split()}
owners = json.loads(os.environ["OWNERS"])

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in owners and not required & {normal(owner) for owner in owners[top]}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path = [each for each in sys.meta_path if "editable" not in repr(each)]
sys.meta_path.insert(0, Absent())
"""

LIST_ALL = """
import json
import typer
from typer.testing import CliRunner
from cli.main import app

def walk(command, path):
    context = typer.Context(command, info_name=path[-1] if path else "tollgate")
    for name in getattr(command, "list_commands", lambda _: [])(context):
        inner = command.get_command(context, name)
        yield [*path, name], inner.hidden
        yield from walk(inner, [*path, name])

print(json.dumps([
    [path, hidden, *(lambda run: (run.exit_code, run.output))(
        CliRunner().invoke(app, [*path, "--help"], prog_name="tollgate"))]
    for path, hidden in walk(typer.main.get_command(app), [])
]))
"""

RUN = "from cli.main import main; main()"

RUN_EACH = """
import json, sys
from typer.testing import CliRunner
from cli.main import app

print(json.dumps([
    (lambda run: (run.exit_code, run.stdout, run.stderr))(
        CliRunner().invoke(app, words.split(), prog_name="tollgate"))
    for words in sys.argv[1:]
]))
"""


@cache
def owners() -> str:
    """Return the distributions of each installed package."""
    return json.dumps(packages_distributions())


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Image:
    """The files of an image, and the names of the distributions that it contains."""

    name: str
    folder: Path
    distributions: frozenset[str]

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script with only what is in the image."""
        return subprocess.run(
            [sys.executable, "-c", ONLY_REQUIREMENTS + script, *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.folder),
                "REQUIRED": " ".join(self.distributions),
                "OWNERS": owners(),
                "TOLLGATE_HOME": str(self.folder / "home"),
            },
            text=True,
            capture_output=True,
        )

    def run_each(self, *commands: str) -> list[Ended]:
        """Run commands one after the other in one process: most of their time is its start."""
        done = self.run(RUN_EACH, *commands)
        assert done.returncode == 0, done.stderr
        return [Ended(*each) for each in json.loads(done.stdout)]


def stage(name: str) -> str:
    """Return the instructions of a stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return the files that an image's COPY lines name, and its pinned distributions."""
    folder = tmp_path_factory.mktemp(request.param)
    for source, target in re.findall(r"^COPY (\w\S*) (\S+)$", stage(request.param), re.M):
        destination = folder / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, destination, dirs_exist_ok=True)
        else:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, destination)
    pinned = (ROOT / "requirements" / f"{request.param}.txt").read_text()
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[\S*\])?==", pinned, re.M)
    return Image(
        request.param, folder, frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in names)
    )


@pytest.fixture(scope="module")
def commands(image: Image) -> list[tuple[list[str], bool, int, str]]:
    """Return each command's path, whether help hides it, and `--help`'s exit code and output."""
    listed = image.run(LIST_ALL)
    assert listed.returncode == 0, listed.stderr
    return [tuple(each) for each in json.loads(listed.stdout)]


def test_every_command_that_an_image_lists_can_show_its_help(
    image: Image, commands: list[tuple[list[str], bool, int, str]]
) -> None:
    listed = {path[0] for path, is_hidden, *_ in commands if not is_hidden}

    assert listed == COMMANDS[image.name]
    assert all(code == 0 for _, _, code, _ in commands)
    assert all("Usage: tollgate" in text for *_, text in commands)


def test_a_command_that_an_image_cannot_run_says_what_is_missing(
    image: Image, commands: list[tuple[list[str], bool, int, str]]
) -> None:
    groups = {tuple(path[:-1]) for path, *_ in commands}
    refused = [path for path, hidden, *_ in commands if hidden and tuple(path) not in groups]

    paths = (refused[0], refused[-1])
    endings = image.run_each(*(" ".join([*path, "some", "--how"]) for path in paths))

    for path, ended in zip(paths, endings, strict=True):
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.fullmatch(
            rf"error: `tollgate {' '.join(path)}` needs the [^;]+, which (is|are) not installed "
            r"here; run it in another image, or in a checkout after `make install`\n",
            ended.stderr,
        )


@pytest.mark.parametrize("image", ["inference", "trainer"], indirect=True)
def test_the_stores_and_keys_are_managed_where_the_registry_is(image: Image) -> None:
    made, keys, models, status, feedback, report, sweep = image.run_each(
        "keys create",
        "keys list",
        "models list",
        "pipelines status wine",
        "models feedback wine",
        "models report wine --url http://127.0.0.1:1",
        "pipelines sweep",
    )

    assert [each.returncode for each in (made, keys, models, status, feedback)] == [0] * 5
    assert models.stdout.startswith("No models yet")
    assert report.stderr == "error: Cannot fetch metrics from http://127.0.0.1:1.\n"
    assert sweep.stderr.startswith(
        "error: `tollgate pipelines sweep` needs the code of the functions, "
    )


@pytest.mark.parametrize("image", ["trainer"], indirect=True)
def test_the_trainer_image_trains(image: Image) -> None:
    data = image.folder / "home" / "data" / "wine"
    data.mkdir(parents=True)
    (data / "empty.csv").write_text("a,b\n")

    ended = image.run(RUN, "train", "wine", "--target", "b")

    assert ended.returncode == 1
    assert re.fullmatch(r"error: (?!unexpected).*\n", ended.stderr)


@pytest.mark.parametrize(
    ("image", "command", "message"),
    [
        ("auth", ("users", "disable", "a@x.io"), "The database"),
        ("billing", ("billing", "verify"), "BILLING_DATABASE_URL: "),
        ("inference", ("billing", "replay"), "INFERENCE_CLIENT_ID and "),
    ],
    indirect=["image"],
)
def test_a_service_image_has_the_commands_of_its_service(
    image: Image, command: tuple[str, ...], message: str
) -> None:
    ended = image.run(RUN, *command)

    assert ended.stderr.startswith(f"error: {message}")
    assert ended.stderr.count("\n") == 1
