"""A numeric column with a few bad cells is refused with their places, never read as text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.trainer import cases
from tests.integration.trainer.conftest import Workshop
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.table import Table, read_table
from trainer.errors import DataError


def read(folder: Path, *texts: str | bytes, **settings: Any) -> Table:
    """Reads CSV parts `1.csv`, `2.csv` … as one table."""
    config = DatasetConfig.model_validate(settings)
    parts = []
    for i, text in enumerate(texts, start=1):
        path = folder / str(i)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        parts.append(open_part(f"{i}.csv", path, settings=config.csv))
    return read_table(parts, config=config, precise=[])


class TestAFewBadCells:
    @pytest.mark.parametrize("cell", ["?", "-", "n/a?", "N.A.", "unknown", "#DIV/0!", "12a", "x"])
    def test_are_refused_by_count_and_place(self, tmp_path: Path, cell: str) -> None:
        text = cases.write(cases.sales(), change={(3, "price"): cell, (9, "price"): cell})

        with pytest.raises(DataError) as why:
            read(tmp_path, text)

        assert f'2 cells that are not numbers: 1.csv line 5: "{cell}", 1.csv line 11:' in str(
            why.value
        )
        assert '"bad_cells": "missing"' in str(why.value)

    def test_name_the_first_three_of_all_parts(self, tmp_path: Path) -> None:
        one = cases.write(cases.sales(), change={(0, "qty"): "?", (1, "qty"): "?"})
        two = cases.write(cases.sales(), change={(5, "qty"): "-", (6, "qty"): "-"})

        with pytest.raises(
            DataError,
            match=r'4 cells .*: 1\.csv line 2: "\?", 1\.csv line 3: "\?", 2\.csv line 7: "-" '
            r"and 1 more\.",
        ):
            read(tmp_path, one, two)

    def test_name_the_other_columns_too(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), change={(0, "qty"): "?", (1, "price"): "?"})

        with pytest.raises(DataError, match=r"Column 'price' has .* The same is true of 'qty'\."):
            read(tmp_path, text)

    def test_have_real_line_numbers_after_cells_of_several_lines(self, tmp_path: Path) -> None:
        changed = {
            (0, "colour"): "red\nor\nblue",
            (2, "colour"): "red\nor blue",
            (4, "qty"): "?",
        }
        text = cases.write(cases.sales(), change=changed)

        with pytest.raises(DataError, match=r'1\.csv line 9: "\?"'):
            read(tmp_path, text)

    def test_have_the_line_of_the_cell_in_a_row_of_several_lines(self, tmp_path: Path) -> None:
        rows = [["a\nb", "1"]] * 30 + [["a\nb\nc", "?"]]

        with pytest.raises(DataError, match=r'1\.csv line 64: "\?"'):
            read(tmp_path, cases.write(rows, ("t", "n")))

    @pytest.mark.parametrize("line_end", ["\r\n", "\r"])
    def test_have_real_line_numbers_with_any_line_ending(
        self, tmp_path: Path, line_end: str
    ) -> None:
        text = cases.write(cases.sales(), line_end=line_end, change={(4, "qty"): "?"})

        with pytest.raises(DataError, match=r'1\.csv line 6: "\?"'):
            read(tmp_path, text)

    def test_have_real_line_numbers_after_blank_lines(self, tmp_path: Path) -> None:
        text = "\n\n" + cases.write(cases.sales(), change={(4, "qty"): "?"})

        with pytest.raises(DataError, match=r'1\.csv line 8: "\?"'):
            read(tmp_path, text)

    def test_are_missing_if_so_configured(self, tmp_path: Path) -> None:
        changed = {(3, "price"): "-", (9, "price"): "n/a?"}
        table = read(tmp_path, cases.write(cases.sales(), change=changed), bad_cells="missing")

        assert table.kinds["price"] == "number"
        assert np.flatnonzero(table.frame["price"].isna()).tolist() == [3, 9]
        assert "2 cells that are not numbers read as missing" in " ".join(table.notes)

    def test_are_text_if_so_configured(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), change={(3, "qty"): "12a"})

        assert read(tmp_path, text, columns={"qty": "text"}).kinds["qty"] == "text"

    def test_that_mean_missing_are_accepted(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), change={(3, "qty"): "-", (4, "qty"): " - "})

        table = read(tmp_path, text, missing=["-"])

        assert table.kinds["qty"] == "number"
        assert table.frame["qty"].isna().sum() == 2

    def test_are_refused_even_if_many_are_placeholders(self, tmp_path: Path) -> None:
        changed = {(row, "qty"): "?" for row in range(0, 80, 2)}

        with pytest.raises(DataError, match="'qty' has 40 cells that are not numbers"):
            read(tmp_path, cases.write(cases.sales(), change=changed))

    def test_of_a_boolean_column_are_refused_too(self, tmp_path: Path) -> None:
        rows = [["true" if i % 2 else "FALSE", "1"] for i in range(40)]
        text = cases.write(rows, ("a", "b"), change={(7, "a"): "?"})

        with pytest.raises(DataError, match=r'1 cell .* not true or false: 1\.csv line 9: "\?"'):
            read(tmp_path, text)
        assert read(tmp_path, text, bad_cells="missing").kinds["a"] == "boolean"

    def test_of_a_parquet_column_configured_as_number_are_named_by_row(
        self, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table({"a": ["1", "2", "x"], "b": [1, 2, 3]}), tmp_path / "p")
        part = open_part("p.parquet", tmp_path / "p")

        with pytest.raises(DataError, match=r'not a number: p\.parquet row 3: "x"'):
            read_table([part], config=DatasetConfig(columns={"a": "number"}), precise=[])

    def test_beyond_32_bits_in_parquet_are_named_by_row(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1.0, 1e39, 2.0]}), tmp_path / "p")
        part = open_part("p.parquet", tmp_path / "p")

        with pytest.raises(
            DataError, match=r'too large for 32-bit floats: p\.parquet row 2: "1e\+39"'
        ):
            read_table([part], config=DatasetConfig(), precise=[])

    def test_of_the_target_do_not_suggest_classification(self, workshop: Workshop) -> None:
        rows = [[*row[:3], f"{float(row[0]) / 100 - 1:.3f}"] for row in cases.sales()]
        workshop.put("m", cases.write(rows, change={(4, "bought"): "N.A."}))

        with pytest.raises(DataError, match=r"'bought' has 1 cell .* line 6: \"N\.A\.\"") as why:
            workshop.train("m", target="bought")

        assert "classification" not in str(why.value)
        assert "text" not in str(why.value)


class TestWithALiveVersion:
    @pytest.mark.costly
    def test_a_change_of_kind_is_named_before_all_other_changes(self, workshop: Workshop) -> None:
        header = (*cases.HEADER[:3], *(f"c{i}" for i in range(12)), "bought")
        rows = [[*row[:3], *"123456789012", row[3]] for row in cases.sales()]
        workshop.put("m", cases.write(rows, header))
        workshop.put("m", json.dumps({"estimators": ["linear"]}), name="dataset.json")
        workshop.train("m", target="bought", release=True)

        words = [[*row[:2], row[2], *(["many"] * 12), row[3]] for row in cases.sales()]
        changed = tuple(name.replace("c", "d") if name[1:].isdigit() else name for name in header)
        words = [["dear" if i % 2 else row[0], *row[1:]] for i, row in enumerate(words)]
        workshop.put("m", cases.write(words, changed))

        with pytest.raises(
            DataError, match=r"of version .*: column 'price' was number and is text;"
        ):
            workshop.train("m", target="bought")
