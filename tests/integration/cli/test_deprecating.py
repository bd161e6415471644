"""`tollgate models deprecate`, and where a deprecation shows up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from harness.stores import FIRST, SECOND, new_signed_store
from registry.store import ModelStore

UNKNOWN = "20260101t000000z-00000000"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Release two versions in a folder, and return what runs a command."""
    store = new_signed_store(tmp_path, f"file://{tmp_path}/models")
    for version in (FIRST, SECOND):
        store.publish(version)
        store.release(version)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINER_ACTOR", "eve@desk")
    return lambda *words: CliRunner().invoke(app, ["models", *words])


def test_a_deprecation_shows_in_the_listings_until_it_is_undone(run: Callable[..., Result]) -> None:
    done = run("deprecate", "wine", FIRST, "--sunset", "2999-01-31", "--reason", "superseded")
    listed, rows = run("list").stdout, json.loads(run("list", "--json").stdout)
    shown = run("show", "wine", "--to", FIRST).stdout
    undone = run("deprecate", "wine", FIRST, "--undo")

    state = "deprecated, sunset 2999-01-31 (eve@desk): superseded"
    assert done.stdout == f"wine: version {FIRST} is {state}\n"
    assert f"{FIRST}  passed  deprecated, sunset 2999-01-31\n" in listed
    assert [row["sunset"] for row in rows] == ["2999-01-31T00:00:00+00:00", None]
    assert state in shown
    assert undone.stdout == f"wine: version {FIRST} is not deprecated\n"
    assert "deprecated" not in run("list").stdout


def test_a_repeat_changes_nothing_and_exits_0(run: Callable[..., Result]) -> None:
    words = ("deprecate", "wine", FIRST, "--sunset", "2999-01-31", "--json")

    first, again = json.loads(run(*words).stdout), json.loads(run(*words).stdout)
    undone = run("deprecate", "wine", SECOND, "--undo")

    assert (first["written"], again["written"], again["deprecated"]) == (True, False, True)
    assert undone.exit_code == 0
    assert undone.stdout == f"wine: version {SECOND} is not deprecated, already\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((FIRST,), 2, "use either --sunset or --undo"),
        ((FIRST, "--undo", "--sunset", "2999-01-31"), 2, "use either --sunset or --undo"),
        ((FIRST, "--sunset", "soon"), 2, "--sunset must be a date"),
        ((FIRST, "--sunset", "2020-01-01"), 2, "--sunset must not be in the past"),
        ((UNKNOWN, "--sunset", "2999-01-31"), 1, f"error: There is no version {UNKNOWN}"),
        (("../x", "--sunset", "2999-01-31"), 1, "error: '../x' is not a valid version name."),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(
    run: Callable[..., Result], tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    result = run("deprecate", "wine", *words)

    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert ModelStore(f"file://{tmp_path}/models").list_numbers("wine", "deprecations") == []
