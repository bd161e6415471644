"""Output of a training run: notes about good data, exactly one line about bad data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

import trainer.data.load
from cli.train import train
from tests.integration.trainer import cases
from tests.integration.trainer.conftest import Workshop

DEFAULT = '{"estimators": ["linear"]}'


@pytest.fixture
def shop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Points commands at the state folder, with one fast family in `dataset.json`."""
    monkeypatch.setenv("TOLLGATE_HOME", str(workshop.home))
    workshop.put("m", DEFAULT, name="dataset.json")
    return workshop


def run(*words: str) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, ["m", "--target", "bought", *words])


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def table_of(rows: cases.Rows, **more: Any) -> pa.Table:
    price, qty, colour, bought = zip(*rows, strict=True)
    numbers = {"price": list(map(float, price)), "qty": list(map(int, qty))}
    return pa.table({**numbers, "colour": colour, "bought": bought, **more})


BAD: dict[str, tuple[str, str]] = {
    "dash": (cases.write(cases.sales(), change={(3, "price"): "-"}), 'part.csv line 5: "-"'),
    "unclear thousands": (
        cases.write(cases.with_column(cases.sales(), 0, lambda cell: "1,234")),
        'part.csv line 2: "1,234"',
    ),
    "no data": (
        cases.write(cases.sales(), change={(0, "price"): "-3.4028234663852886e+38"}),
        "'price' has the largest 32-bit float in 1 cell, which looks like a mark for missing "
        'values: part.csv line 2: "-3.4028234663852886e+38"',
    ),
    "too large": (cases.write(cases.sales(), change={(0, "price"): "1e400"}), '"1e400"'),
    "labels": (
        cases.write(cases.sales(), change={(0, "bought"): "Yes", (1, "bought"): "Yes"}),
        '"Yes" (2 rows)',
    ),
    "torn": (
        cases.write(cases.sales()) + "1,2\n",
        "line 82 has 2 cells, the header has 4",
    ),
    "quote": (cases.write(cases.sales()) + '"', "line 82"),
    "encoding": (cases.write(cases.sales()) + "1,2,\udcff,yes\n", "not UTF-8 at byte"),
    "one class": (
        cases.write(cases.with_column(cases.sales(), 3, lambda cell: "yes")),
        'only one value: "yes"',
    ),
    "few rows": (cases.write(cases.sales(10)), "The data has only 10 rows; at least 20"),
    "few labels": (
        cases.write(cases.sales(30), change={(row, "bought"): "" for row in range(11)}),
        "Only 19 of 30 rows have a target; at least 20",
    ),
    "no target": (
        cases.write(cases.sales(), ("a", "b", "c", "d")),
        "target column 'bought' does not exist",
    ),
    "nothing": ("", "part.csv: the file is empty"),
}


class TestBadData:
    @pytest.mark.parametrize("name", BAD)
    def test_is_one_line_on_stderr(self, shop: Workshop, name: str) -> None:
        text, message = BAD[name]
        shop.put("m", text.encode("utf-8", "surrogateescape"))

        result = run("--json")

        [line] = result.stderr.splitlines()
        assert result.exit_code == 1
        assert line.startswith("error: ")
        assert message in line
        assert result.stdout == ""

    def test_with_a_class_only_in_the_newest_rows_is_one_line(self, shop: Workshop) -> None:
        rows = [[str(i), "1", "red", "no" if i < 75 else "yes"] for i in range(80)]
        shop.put("m", cases.write(rows))
        shop.put("m", '{"time": "price"}', name="dataset.json")

        result = run()

        [line] = result.stderr.splitlines()
        assert "Class 'yes' appears only in the newest rows" in line

    @pytest.mark.parametrize("word", ["soon", "now", "today"])
    def test_that_is_not_a_time_is_named_with_its_place(self, shop: Workshop, word: str) -> None:
        rows = cases.with_column(cases.sales(), 2, lambda cell: "2026-01-02")
        shop.put("m", cases.write(rows, change={(5, "colour"): word, (0, "bought"): ""}))
        shop.put("m", '{"time": "colour"}', name="dataset.json")

        [line] = run().stderr.splitlines()

        assert "'colour' has 1 cell that is not a date" in line
        assert f'part.csv line 7: "{word}"' in line

    def test_with_fractions_as_classes_names_the_first(self, shop: Workshop) -> None:
        rows = [[*row[:3], str(i % 2)] for i, row in enumerate(cases.sales())]
        shop.put("m", cases.write(rows, change={(6, "bought"): "0.5"}))
        shop.put("m", '{"task": "classification", "target": "bought"}', name="dataset.json")

        [line] = run().stderr.splitlines()

        assert "'bought' has fractions, which cannot be classes: part.csv line 8" in line

    def test_that_causes_an_unexpected_error_prints_no_traceback(
        self, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("of\ntwo lines")

        monkeypatch.setattr(trainer.data.load, "fetch_dataset", fail)

        result = run()

        [line] = result.stderr.splitlines()
        assert result.exit_code == 1
        assert line.startswith("error: unexpected ZeroDivisionError: of two lines (test_output")

    @pytest.mark.costly
    def test_too_large_to_fit_names_the_largest_number(self, shop: Workshop) -> None:
        rows = cases.with_column(cases.sales(), 0, lambda cell: "3e38")
        shop.put("m", cases.write(rows, change={(0, "price"): "1"}))
        shop.put("m", '{"estimators": ["random_forest"]}', name="dataset.json")

        result = run()

        assert result.exit_code == 1
        [line] = [line for line in result.stderr.splitlines() if "%" not in line[:5]]
        assert "No candidate can be fitted. The largest number is 3e+38, in column 'price'" in line


@pytest.mark.costly
class TestGoodData:
    def test_is_described_on_the_terminal_in_json_and_in_the_report(self, shop: Workshop) -> None:
        changed = {(row, "bought"): "" for row in range(0, 80, 7)}
        shop.put("m", cases.write(cases.sales(), change=changed))
        shop.put("m", "", name="part-2.csv")

        result = run()

        lines = result.stdout.splitlines()
        assert result.exit_code == 0, result.stderr
        assert lines[:-1] == [
            "Read 80 rows from 1 file.",
            "Skipped empty files: part-2.csv.",
            "Read as: comma-separated, UTF-8, decimal point.",
            "Dropped 12 rows without a value in the target 'bought'; 68 are left.",
            "Columns: price (number), qty (number), colour (text).",
            "Not used as columns: bought (the target).",
        ]
        assert result.stderr.splitlines()[0] == "  0% reading the data"
        [version] = shop.store.list_versions("m")
        manifest = shop.store.open_version("m", version, shop.trusted)
        page = shop.store.read_file(manifest, "report.html").decode()
        assert "Dropped 12 rows without a value in the target &#39;bought&#39;" in page
        assert manifest.metrics["rows_without_target"] == 12

    def test_excludes_index_groups_and_ignored_columns(self, shop: Workshop) -> None:
        more = {"__index_level_0__": list(range(80)), "id": ["x"] * 80, "house": list(range(80))}
        shop.put("m", parquet(table_of(cases.sales(), **more)), name="a.parquet")
        shop.put(
            "m",
            '{"ignore": ["id"], "group": "house", "estimators": ["linear"]}',
            name="dataset.json",
        )

        result = run("--json")

        outcome = json.loads(result.stdout)
        assert "Columns: price (number), qty (number), colour (text)." in outcome["notes"]
        assert (
            "Not used as columns: __index_level_0__ (pandas' index), id (ignored in dataset.json), "
            "bought (the target), house (the group)." in outcome["notes"]
        )

    def test_with_many_categories_notes_how_they_are_used(self, shop: Workshop) -> None:
        names = [f"town {i // 2}" for i in range(300)]
        rows = [[*row[:2], name, row[3]] for row, name in zip(cases.sales(300), names, strict=True)]
        shop.put("m", cases.write(rows))
        shop.put("m", '{"estimators": ["linear"]}', name="dataset.json")

        notes = " ".join(json.loads(run("--json").stdout)["notes"])

        assert "Column 'colour' has 144 categories in the training rows" in notes
        assert "the 50 most frequent are used by themselves, and all by the mean target." in notes

    def test_with_times_notes_the_held_out_rows(self, shop: Workshop) -> None:
        days = np.arange(80).astype("datetime64[D]").astype(str)
        rows = [[*row[:2], str(day), row[3]] for row, day in zip(cases.sales(), days, strict=True)]
        shop.put("m", cases.write(rows, change={(3, "colour"): ""}))
        shop.put("m", '{"time": "colour", "estimators": ["linear"]}', name="dataset.json")

        outcome = json.loads(run("--json").stdout)

        notes = " ".join(outcome["notes"])
        assert "The 20 rows with 'colour' from 1970-03-02T00:00:00Z on are held out" in notes
        assert "Rows without a time count as older than all others (1)." in notes
        assert "colour (the time; it only decides which rows are held out)" in notes

    def test_with_an_empty_column_notes_it(self, shop: Workshop) -> None:
        shop.put("m", cases.write(cases.with_column(cases.sales(), 1, lambda cell: "NA")))

        assert "Empty columns: qty." in json.loads(run("--json").stdout)["notes"]


def test_a_pipe_gets_progress_lines_once_the_data_is_read(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.output import progress

    with progress(first_shown=0.1) as report:
        report("reading the data", 0.0)
        early = capsys.readouterr().err
        report("fitting", 0.2)
        late = capsys.readouterr().err

    assert (early, late) == ("", "  0% reading the data\n 20% fitting\n")


def test_paths_in_the_home_folder_are_never_shown(shop: Workshop, tmp_path: Path) -> None:
    shop.put("m", BAD["dash"][0])

    assert str(tmp_path) not in run().output
