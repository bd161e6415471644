"""A child process runs an owner's code; whatever it does is reported in one line."""

from pathlib import Path
from typing import Any

import pytest

from cli.supervised import SupervisedError, run_supervised
from harness.programs import ROOT
from harness.waiting import eventually

LONG_S = 60.0


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child import the functions of this folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(function: str, *, timeout_s: float = LONG_S, **arguments: Any) -> Any:
    return run_supervised(
        f"tests.integration.cli.misbehaving:{function}",
        code="code.py",
        timeout_s=timeout_s,
        report_progress=arguments.pop("report_progress", lambda doing, share: None),
        **arguments,
    )


def test_the_result_and_the_progress_arrive_and_the_output_stays_clean(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen: list[tuple[str, float]] = []

    def note(doing: str, share: float) -> None:
        seen.append((doing, share))

    result = run("adds", left=2, right=3, report_progress=note)

    assert result == 5
    assert seen == [("adding", 0.5)]
    assert capfd.readouterr() == ("", "noise\n")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("exits", "code.py ended the process with exit code 3."),
        ("crashes", "code.py crashed the process (SIGSEGV)."),
        ("refuses", "The store is full."),
        ("is_faulty", "unexpected KeyError: 'missing\\nkey' (misbehaving.py line "),
    ],
)
def test_a_failure_is_one_line(function: str, expected: str) -> None:
    with pytest.raises(SupervisedError) as failure:
        run(function)

    assert str(failure.value).startswith(expected)
    assert "\n" not in str(failure.value)


def test_code_that_never_returns_is_ended() -> None:
    with pytest.raises(SupervisedError) as failure:
        run("loops", timeout_s=0.5)

    assert str(failure.value) == (
        "code.py did not finish within 0.5 s; use --timeout to allow more."
    )


def test_only_the_time_of_the_code_counts() -> None:
    assert run("is_slow_elsewhere", seconds=1.2, timeout_s=1.0) == "done"


def test_processes_that_the_code_started_end_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    with pytest.raises(SupervisedError, match="did not finish"):
        run("leaves_a_worker", file=file, timeout_s=3)

    worker = Path("/proc", file.read_text())
    eventually(lambda: not worker.exists() or "\nState:\tZ" in (worker / "status").read_text())
