"""Numbers as people write them are parsed and reported, or refused with their place."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.trainer import cases
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.number_formats import CellScan, NumberStyle, parse_numbers
from trainer.data.table import Table, read_table
from trainer.errors import DataError


def read(folder: Path, text: str | bytes, name: str = "part.csv", **settings: Any) -> Table:
    path = folder / "part"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    config = DatasetConfig.model_validate(settings)
    part = open_part(name, path, ignore=config.ignore, settings=config.csv)
    return read_table([part], config=config, precise=["a"])


def column(*cells: str) -> str:
    """Returns one column `a` as CSV, with another so that empty cells make no blank lines."""
    return cases.write([[cell, "1"] for cell in cells], ("a", "b"))


def values(table: Table) -> list[float | None]:
    return [None if math.isnan(value) else value for value in table.frame["a"].tolist()]


class TestAColumnIsParsedAndReported:
    @pytest.mark.parametrize(
        ("cells", "numbers", "note"),
        [
            (
                ["$5.25", "$1,000.00", "-$3", "($2.50)"],
                [5.25, 1000, -3, -2.5],
                '"$", which is dropped',
            ),
            (["€ 5", "€ 7"], [5, 7], '"€", which is dropped'),
            (["5 EUR", "7,50 EUR"], [5, 7.5], "a decimal comma"),
            (["5,001.00", "1.50"], [5001, 1.5], "thousands separators"),
            (["50,01", "3,5", "7"], [50.01, 3.5, 7], "a decimal comma"),
            (["1.234,5", "0,25"], [1234.5, 0.25], "a decimal comma and thousands separators"),
            (["1 234.5", "1 000 000"], [1234.5, 1_000_000], "thousands separators"),
            (["1\u00a0234,5", "12"], [1234.5, 12], "a decimal comma and thousands separators"),
            (["1\u2009234.5", "1\u202f000"], [1234.5, 1000], "thousands separators"),
            (["1'234.5", "2’000.5"], [1234.5, 2000.5], "thousands separators"),
            (["12,34,567", "1.5"], [1_234_567, 1.5], "thousands separators"),
            (["12%", "7.5 %"], [12, 7.5], '"%", which is dropped'),
            (["(12)", "3", "4.5"], [-12, 3, 4.5], "negative numbers in brackets"),
            (["\u221212", "+3", "5-"], [-12, 3, -5], ""),
            (["1e3", "-2.5E-1", ".5", "7."], [1000, -0.25, 0.5, 7], ""),
        ],
    )
    def test_as_written(
        self, tmp_path: Path, cells: list[str], numbers: list[float], note: str
    ) -> None:
        table = read(tmp_path, column(*cells))

        assert table.kinds["a"] == "number"
        assert values(table) == pytest.approx(numbers)
        assert note in " ".join(table.notes)

    def test_other_columns_settle_the_decimal_sign(self, tmp_path: Path) -> None:
        comma = cases.write([["1.234", "0,5"], ["2.500", "1,25"]], ("a", "b"))
        point = cases.write([["1,234", "0.5"], ["2,500", "1.25"]], ("a", "b"))

        assert values(read(tmp_path, comma)) == [1234, 2500]
        assert values(read(tmp_path, point)) == [1234, 2500]

    def test_points_alone_are_decimal_points(self, tmp_path: Path) -> None:
        assert values(read(tmp_path, column("1.234", "2.500"))) == [1.234, 2.5]

    def test_the_configuration_decides(self, tmp_path: Path) -> None:
        unclear = column("1,234", "2,500")

        assert values(read(tmp_path, unclear, csv={"decimal": ","})) == [1.234, 2.5]
        assert values(read(tmp_path, unclear, csv={"decimal": "."})) == [1234, 2500]
        assert values(read(tmp_path, unclear, csv={"thousands": ","})) == [1234, 2500]

    def test_in_a_parquet_text_column_if_configured(self, tmp_path: Path) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": ["$1,000", "$2.5"]}), sink)

        table = read(tmp_path, sink.getvalue().to_pybytes(), "a.parquet", columns={"a": "number"})

        assert values(table) == [1000, 2.5]


class TestAColumnIsRefusedWithThePlace:
    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            (
                ["1,234", "2,500"],
                r'commas or thousands separators: part\.csv line 2: "1,234"',
            ),
            (["$5", "$1,234"], r'or thousands separators: part\.csv line 3: "\$1,234"'),
            (["$5", "$6", "€7"], r'1 cell that is not a number with "\$": part\.csv line 4: "€7"'),
            (["12%", "15%", "0.12"], r'not a number with "%": part\.csv line 4: "0\.12"'),
            (["0,5", "1,5", "2.5"], r'with a decimal comma: part\.csv line 4: "2\.5"'),
            (["1", "2", "--5"] + ["3"] * 20, r'line 4: "--5"'),
            (["1", "2", "1,23,4"] + ["3"] * 20, r'line 4: "1,23,4"'),
        ],
    )
    def test_if_its_numbers_are_not_of_one_kind(
        self, tmp_path: Path, cells: list[str], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            read(tmp_path, column(*cells))

    @pytest.mark.parametrize("cell", ["1e400", "-1e400", "inf", "1e39", "-1.7976931348623157e308"])
    def test_if_a_number_is_beyond_32_bits(self, tmp_path: Path, cell: str) -> None:
        with pytest.raises(
            DataError, match=rf'too large for 32-bit floats: part\.csv line 3: "{cell}"'
        ):
            read(tmp_path, column("1", cell, "2"))

    @pytest.mark.parametrize("cell", ["-3.4028234663852886e+38", "3.4028235e38", "-3.4028234e+38"])
    def test_if_the_largest_float_stands_for_no_data(self, tmp_path: Path, cell: str) -> None:
        text = column("1", cell, "2", cell)

        with pytest.raises(DataError, match=r"'a' has the largest 32-bit float in 2 cells") as why:
            read(tmp_path, text)

        assert f'part.csv line 3: "{cell}"' in str(why.value)
        assert values(read(tmp_path, text, missing=[cell])) == [1, None, 2, None]


class TestTextStaysText:
    @pytest.mark.parametrize(
        "cells",
        [
            ["SKU123", "ABC456"],
            ["192.168.0.1", "10.0.0.1"],
            ["1.2.3", "1.2.4"],
            ["030 123 456", "040 123 456"],
            ["16GB", "32GB"],
            ["3rd", "4th"],
            ["10-20", "20-30"],
            ["A", "B", "-"],
            ["1", "2", "about"],
        ],
    )
    def test_that_only_resembles_numbers(self, tmp_path: Path, cells: list[str]) -> None:
        assert read(tmp_path, column(*cells)).kinds["a"] == "text"

    def test_of_which_half_are_numbers_is_reported(self, tmp_path: Path) -> None:
        table = read(tmp_path, column("1", "2", "about"))

        assert (
            "Column 'a' is text: 1 of 3 cells is not a number: part.csv line 4: \"about\"."
            in table.notes
        )


@pytest.mark.parametrize("cells", [["5 kg", "7 kg"], ["16GB", "8GB"], ["20°C", "3.5°C"]])
def test_numbers_with_words_are_text_and_reported(tmp_path: Path, cells: list[str]) -> None:
    table = read(tmp_path, column(*cells))

    assert table.kinds["a"] == "text"
    assert f'2 of 2 cells are a number and a word: part.csv line 2: "{cells[0]}"' in " ".join(
        table.notes
    )


def test_a_scan_does_not_depend_on_block_size() -> None:
    cells = ["1.5", "1,5", "$3", "-", "word", "true", "1,234", None, "(7)"]
    together, apart = CellScan(), CellScan()

    together.scan(pa.array(cells, pa.large_string()))
    for cell in cells:
        apart.scan(pa.array([cell], pa.large_string()))

    assert together == apart
    assert (together.present, together.numbers, together.truths) == (8, 5, 1)


def test_null_is_not_a_number_in_any_style() -> None:
    for style in (NumberStyle(), NumberStyle(","), NumberStyle(unit="$")):
        assert math.isnan(parse_numbers(pa.array([None], pa.large_string()), style)[0])
