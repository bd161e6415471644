"""The written results: tables that are well formed whatever could not be measured."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import results
from bench.figures import Figure
from bench.load import Measured, RequestsFailed
from bench.results import Results
from bench.rivals.comparison import (
    LIMIT,
    TOLLGATE,
    RivalsResult,
    ServerResult,
    figures_of,
    noting_failure,
)
from bench.timing import Timing


def server(name: str, rate: float, *, engine: str = "ONNX") -> ServerResult:
    """Return a server with the same rate for all work."""
    works = [("wine", 1), ("wine", 16), ("wine", 64), ("forest", 64)]
    measured = [Measured(rate, 1.0, 2.5, 100)]
    return ServerResult(name, engine, {work: measured for work in works}, [1.5], [50_000_000])


@pytest.fixture
def servers() -> list[ServerResult]:
    """Tollgate, the limit, two rivals, and one that could not be built."""
    return [
        server(TOLLGATE, 8000.0),
        server(LIMIT, 9000.0),
        server("KServe (ONNX)", 1000.0),
        server("KServe (scikit-learn)", 500.0, engine="scikit-learn"),
        ServerResult("Ray Serve (scikit-learn)", "scikit-learn", problem="not built: a | pipe"),
    ]


@pytest.fixture
def run(servers: list[ServerResult]) -> Results:
    """A run with rivals."""
    rivals = RivalsResult(servers, {"kserve": {"kserve": "0.21.0", "numpy": "2.4.6"}})
    figures = [Figure("a ÷ b", 0.9, "×", "x | y", at_least=1.0), Figure("lag", None, "ms", "")]
    return Results(figures, rivals, Timing(), "python -m bench", 125.0)


def test_every_line_of_a_table_has_as_many_cells_as_its_heading(run: Results) -> None:
    document = results.document(run, how=["Date: today"])

    tables = re.findall(r"(?:^\|.*\n)+", document, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_rival_that_was_not_built_is_listed_with_the_reason(run: Results) -> None:
    document = results.document(run, how=[])

    assert "| Ray Serve | scikit-learn | not built: a \\| pipe |" in document


def test_the_document_lists_figures_and_resolved_versions(run: Results) -> None:
    document = results.document(run, how=["Date: today"])

    assert "- Date: today" in document
    assert "| a ÷ b | 0.90 × | ≥ 1 × | miss | x \\| y |" in document
    assert "| KServe 0.21.0 | numpy 2.4.6 |" in document


def test_the_chart_has_the_measured_servers_the_fastest_first(run: Results) -> None:
    assert run.rivals is not None

    texts = ElementTree.fromstring(results.chart(run.rivals)).itertext()

    names = [text for text in texts if text in {each.name for each in run.rivals.servers}]
    assert names == [LIMIT, TOLLGATE, "KServe (ONNX)", "KServe (scikit-learn)"]


def test_the_best_rival_counts_whatever_runs_its_model(servers: list[ServerResult]) -> None:
    ratios = {figure.name: figure.value for figure in figures_of(servers)}

    assert ratios["wine, one row, 16 connections ÷ best rival"] == 8.0
    assert ratios["wine, one row, 16 connections ÷ best with scikit-learn"] == 16.0
    assert ratios["forest, one row, 64 connections ÷ best rival"] == 8.0


def test_without_a_measured_rival_there_is_no_ratio(servers: list[ServerResult]) -> None:
    figures = figures_of([*servers[:2], servers[-1]])

    assert {figure.value for figure in figures} == {None}


def test_both_files_are_written(run: Results, tmp_path: Path) -> None:
    results.write(tmp_path, run)

    written = (tmp_path / "RESULTS.md").read_text()
    assert "Command: `python -m bench`, 2 minutes" in written
    assert "numpy" in written
    assert (tmp_path / "results.svg").read_text().startswith("<svg ")


def test_a_server_that_fails_is_noted_and_does_not_end_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = ServerResult("KServe (ONNX)", "ONNX")

    with noting_failure(result, Timing()):
        raise RequestsFailed("of 0 responses:\n no response")

    assert result.problem == "failed: of 0 responses: no response"
    assert result.problem in capsys.readouterr().out
