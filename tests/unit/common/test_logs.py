"""Log lines for machines and for people."""

import json
import logging
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from services.common.settings import LogFormat
from services.common.telemetry.logs import configure_logging

HOSTILE = "a\x1b[31mb\n\u202e"


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)


def logged(capsys: pytest.CaptureFixture[str], style: LogFormat) -> str:
    """Log one line of each kind and return the output on stderr."""
    configure_logging("auth", style=style)
    log = structlog.get_logger()
    log.info("request", path=HOSTILE, status=200)
    logging.getLogger("library").warning("said %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("request_failed")
    return capsys.readouterr().err


def test_a_terminal_gets_aligned_lines_with_service_level_and_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = logged(capsys, "text").splitlines()

    assert lines[0].split()[1:4] == ["auth", "info", "request"]
    assert lines[0].endswith("status=200")
    assert lines[0].index("request") == lines[1].index('"said')


@pytest.mark.parametrize("style", ["text", "json"])
def test_client_input_cannot_control_the_terminal_or_forge_a_line(
    capsys: pytest.CaptureFixture[str], style: LogFormat
) -> None:
    output = logged(capsys, style)

    assert output.count("ValueError") >= 1
    assert all(character.isprintable() for character in output.replace("\n", ""))
    assert not any(line.startswith("\u202e") for line in output.splitlines())


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "coloured"),
    [(True, None, True), (True, "1", False), (False, None, False)],
    ids=["a terminal", "a terminal without colours", "a file"],
)
def test_only_a_terminal_gets_colours_unless_they_are_turned_off(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    no_color: str | None,
    coloured: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)

    output = logged(capsys, "text")

    assert ("\x1b[32minfo" in output) is ("\x1b" in output) is coloured


@pytest.mark.parametrize(("style", "shown"), [("text", False), ("json", True)])
def test_a_terminal_is_spared_the_phases_of_a_servers_start(
    capsys: pytest.CaptureFixture[str], style: LogFormat, shown: bool
) -> None:
    configure_logging("auth", style=style)

    logging.getLogger("uvicorn.error").info("Waiting for application startup.")

    assert ("Waiting" in capsys.readouterr().err) is shown


def test_other_output_is_one_json_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [json.loads(line) for line in logged(capsys, "json").splitlines()]

    assert [entry["service"] for entry in entries] == ["auth"] * 3
    assert entries[0]["path"] == HOSTILE


def test_a_line_that_cannot_be_written_is_lost_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_logging("auth")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        structlog.get_logger().info("request_completed")
        with suppress(OSError):  # what is left in its buffer
            full.close()
