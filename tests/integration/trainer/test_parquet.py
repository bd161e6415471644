"""Parquet parts: types are respected, and formats may be mixed."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.trainer import cases, samples
from tests.integration.trainer.conftest import Workshop
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.table import Table, read_table
from trainer.errors import DataError


def read(folder: Path, *tables: pa.Table, csv: str | None = None) -> Table:
    """Reads parts of both formats as one table."""
    parts = []
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i}")
        parts.append(open_part(f"{i}.parquet", folder / f"{i}"))
    if csv is not None:
        (folder / "csv").write_text(csv)
        parts.append(open_part("part.csv", folder / "csv"))
    return read_table(parts, config=DatasetConfig(), precise=[])


def write(workshop: Workshop, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    workshop.put("m", sink.getvalue().to_pybytes(), name="part.parquet")


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "kind", "cells"),
        [
            (pa.array([1, None, 3], pa.int64()), "number", [1.0, None, 3.0]),
            (pa.array([1.5, float("nan"), None]), "number", [1.5, None, None]),
            (pa.array([decimal.Decimal("1.25"), None, None]), "number", [1.25, None, None]),
            (pa.array([True, None, False]), "boolean", [1.0, None, 0.0]),
            (pa.array(["1", "", None]), "text", ["1", None, None]),
            (pa.array(["a", None, "a"]).dictionary_encode(), "text", ["a", None, "a"]),
            (
                pa.array([datetime.date(2026, 1, 2), None, None]),
                "datetime",
                [1_767_312_000.0, None, None],
            ),
            (pa.nulls(3), None, [None, None, None]),
        ],
    )
    def test_decide_the_kinds(
        self, tmp_path: Path, values: pa.Array, kind: str | None, cells: list[Any]
    ) -> None:
        table = read(tmp_path, pa.table({"a": values}))

        found = [None if cell != cell else cell for cell in table.frame["a"]]
        assert table.kinds == {"a": kind}
        assert found == cells

    def test_that_are_unsupported_are_refused_by_name(self, tmp_path: Path) -> None:
        for values, kind in (([[1]], "list"), ([{"b": 1}], "struct"), ([b"x"], "binary")):
            with pytest.raises(
                DataError, match=f"0.parquet: column 'a' has the unsupported type {kind}"
            ):
                read(tmp_path, pa.table({"a": pa.array(values)}))

    @pytest.mark.costly
    def test_of_ignored_columns_may_be_unsupported(self, workshop: Workshop) -> None:
        labels = [i // 20 for i in range(40)]
        table = pa.table({"a": [*range(40)], "void": [[b"x"]] * 40, "y": labels})
        write(workshop, table)
        workshop.configure("m", ignore=["void"])

        signature = workshop.manifest(workshop.train("m", target="y")).signature

        assert [column.name for column in signature.columns] == ["a"]

    def test_of_text_that_is_not_utf_8_is_refused(self, tmp_path: Path) -> None:
        raw = pa.array([b"a", b"\xff"] * 20)
        texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())

        with pytest.raises(DataError, match=r"0\.parquet: the file is damaged"):
            read(tmp_path, pa.table({"a": texts}))


class TestParts:
    def test_of_both_formats_are_combined_if_their_columns_agree(self, tmp_path: Path) -> None:
        table = read(tmp_path, pa.table({"a": [1.5], "t": ["x"]}), csv="t,a\ny,2\n")

        assert table.kinds == {"a": "number", "t": "text"}
        assert table.frame["a"].tolist() == [1.5, 2.0]
        assert list(table.frame["t"]) == ["x", "y"]

    def test_with_an_empty_column_match_any_kind(self, tmp_path: Path) -> None:
        nothing = pa.table({"a": pa.nulls(2), "b": pa.nulls(2), "c": pa.nulls(2)})

        table = read(tmp_path, nothing, csv="a,b,c\n1 kg,x,3\n2,7,4\n")

        assert table.kinds == {"a": "text", "b": "text", "c": "number"}

    def test_whose_columns_differ_are_named(self, tmp_path: Path) -> None:
        numbers, texts = pa.table({"a": [1]}), pa.table({"a": ["1"]})

        with pytest.raises(DataError, match=r"1\.parquet: column 'a' is text, but number in 0"):
            read(tmp_path, numbers, texts)
        with pytest.raises(DataError, match=r"'a' has 1 cell .* not a number: part\.csv line 2"):
            read(tmp_path, numbers, csv="a\nx\n")
        with pytest.raises(DataError, match=r"part\.csv: its header differs from that of 0"):
            read(tmp_path, numbers, csv="b\n1\n")

    @pytest.mark.costly
    def test_without_columns_are_skipped_if_they_have_no_rows_either(
        self, workshop: Workshop
    ) -> None:
        workshop.put("m", cases.write(cases.sales()))
        workshop.configure("m")
        pq.write_table(pa.table({}), workshop.home / "data/m/nothing.parquet")

        outcome = workshop.train("m", target="bought")

        assert "Skipped empty files: nothing.parquet." in outcome.notes

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (pa.table({}), "part.parquet: the file has no columns."),
            (
                pa.table({"__index_level_0__": [1, 2]}),
                "part.parquet: the file has no columns, only pandas' index __index_level_0__.",
            ),
        ],
    )
    def test_without_columns_are_refused_by_name(
        self, workshop: Workshop, table: pa.Table, message: str
    ) -> None:
        write(workshop, table)

        with pytest.raises(DataError) as error:
            workshop.train("m", target="y")

        assert str(error.value) == message

    def test_that_are_damaged_are_refused(self, tmp_path: Path, workshop: Workshop) -> None:
        workshop.put("m", b"PAR1 and then nothing", name="part.parquet")

        with pytest.raises(DataError, match=r"part\.parquet: not a readable Parquet file"):
            workshop.train("m", target="y")


@pytest.mark.costly
def test_the_same_rows_make_the_same_model_in_either_format(workshop: Workshop) -> None:
    rows = samples.rows(samples.value)
    workshop.put_rows("m", samples.HEADER, rows)
    workshop.configure("m")
    from_csv = workshop.train("m", target="y")
    (workshop.home / "data/m/part.csv").unlink()
    size, sold, colour, _, y = zip(*rows, strict=True)
    write(
        workshop,
        pa.table(
            {
                "size": pa.array([None if cell == "" else cell for cell in size], pa.float64()),
                "sold": [None if cell == "" else cell == "true" for cell in sold],
                "colour": list(colour),
                "void": pa.nulls(len(rows)),
                "y": list(y),
            }
        ),
    )

    from_parquet = workshop.train("m", target="y")

    assert from_parquet.gate == "passed"
    assert from_parquet.metrics["candidate"] == from_csv.metrics["candidate"]
    assert np.isfinite(from_parquet.metrics["candidate"]["rmse"])
