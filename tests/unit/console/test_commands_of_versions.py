"""The commands on the page of a model: for each state, and as the command line reads them."""

import shlex
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from cli.main import app
from services.console.admin.versions import (
    Command,
    Version,
    commands_of_canary,
    commands_of_model,
    commands_of_version,
)
from services.console.apis.admin_inference import VersionFigures

TODAY = date(2026, 11, 28)
OLD, NOW, NEW = (f"2026{month:02}01t000000z-0a1b2c3d" for month in (9, 10, 11))


def version(
    name: str, *, was_live: bool = True, percent: float | None = None, sunset: str | None = None
) -> Version:
    return Version(
        name=name,
        live=name == NOW,
        state="UNAVAILABLE",
        released_at="2026-11-01T00:00:00Z" if was_live else None,
        sunset=sunset,
        figures=VersionFigures(canary_percent=percent),
    )


def offered(
    shown: Version, *others: Version, model: str = "wine", release: int | None = 7
) -> list[Command]:
    return commands_of_version(model, shown, [shown, *others], release=release, today=TODAY)


def titles(commands: list[Command]) -> list[str]:
    return [each.title for each in commands]


def parse(text: str) -> dict[str, Any]:
    """Return the command's arguments as `tollgate` reads them, without running it."""
    program, *names = shlex.split(text)
    assert program == "tollgate"
    command: Any = get_command(app)
    context = command.context_class(command, info_name="tollgate")
    for _ in range(2):
        command = command.get_command(context, names.pop(0))
        assert command is not None, text
    parameters: dict[str, Any] = command.make_context("", names, parent=context).params
    return parameters


def test_the_live_version_can_be_left_and_is_never_released() -> None:
    assert titles(offered(version(NOW), version(OLD))) == ["Roll back", "Deprecate"]


def test_the_only_version_that_was_live_can_be_withdrawn() -> None:
    withdraw, _ = offered(version(NOW), version(NEW, was_live=False))

    assert withdraw.title == "Withdraw"
    assert parse(withdraw.text)["release"] == 7


def test_a_new_version_is_released_or_tried_on_some_callers() -> None:
    release, canary = offered(version(NEW, was_live=False), version(NOW))

    assert (release.title, canary.title) == ("Release", "Canary")
    assert parse(release.text)["version"] == NEW
    assert parse(canary.text)["percent"] == 5


def test_one_that_was_live_before_is_rolled_back_to() -> None:
    back, *_ = offered(version(OLD), version(NOW))

    assert back.title == "Roll back to it"
    assert parse(back.text)["version"] == OLD


def test_one_that_was_rolled_back_is_released_again() -> None:
    assert titles(offered(version(NEW), version(NOW))) == ["Release", "Canary", "Deprecate"]


def test_without_a_live_version_there_is_nothing_to_try_beside() -> None:
    assert titles(offered(version(NEW, was_live=False), release=None)) == ["Release"]


def test_a_deprecation_has_a_date_and_can_be_taken_back() -> None:
    *_, deprecate = offered(version(NOW), version(OLD))
    *_, undo = offered(version(NOW, sunset="2027-01-31T00:00:00Z"), version(OLD))

    assert parse(deprecate.text)["sunset"] == "2027-02-26"
    assert parse(undo.text)["undo"] is True


@pytest.mark.parametrize(
    ("percent", "more"), [(5, 25), (0.5, 25), (25, 50), (60, 100), (100, None)]
)
def test_a_canary_is_promoted_gets_more_callers_or_ends(percent: float, more: int | None) -> None:
    commands = offered(version(NEW, was_live=False, percent=percent), version(NOW))

    steps = ["More callers"] if more else []
    assert titles(commands) == ["Promote", *steps, "End"]
    assert commands == commands_of_canary("wine", NEW, percent)
    assert [parse(each.text)["percent"] for each in commands[1:-1]] == ([more] if more else [])
    assert parse(commands[-1].text)["off"] is True


@given(
    model=st.text(min_size=1).filter(lambda name: not name.startswith("-")),
    was_live=st.booleans(),
    percent=st.none() | st.floats(0.01, 100),
    sunset=st.none() | st.just("2027-01-31T00:00:00Z"),
    release=st.none() | st.integers(1, 10**6),
)
def test_every_command_names_its_model_whatever_it_is_called(
    model: str, was_live: bool, percent: float | None, sunset: str | None, release: int | None
) -> None:
    shown = version(NEW, was_live=was_live, percent=percent, sunset=sunset)
    commands = offered(shown, version(NOW), model=model, release=release)

    for text in (each.text for each in commands):
        assert parse(text)["model"] == model


def test_commands_of_the_model_name_no_version() -> None:
    commands = dict(commands_of_model("wine", inference="http://127.0.0.1:8002"))

    found = [parse(each) for each in commands.values()]

    assert all(each["model"] == "wine" for each in found)
    assert not any(each.get("version") for each in found)
    assert list(parse(commands["Report"])["urls"]) == ["http://127.0.0.1:8002"]
