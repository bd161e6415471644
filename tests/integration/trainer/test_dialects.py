"""CSV dialects that spreadsheets write are detected and reported, or set in dataset.json."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.trainer import cases
from tests.integration.trainer.conftest import Workshop
from trainer.data.config import DatasetConfig, parse_dataset_config
from trainer.data.download import fetch_dataset
from trainer.data.formats import open_part
from trainer.data.table import Table, read_table
from trainer.errors import DataError


def read(folder: Path, raw: bytes, **settings: Any) -> Table:
    path = folder / "part"
    path.write_bytes(raw)
    config = DatasetConfig.model_validate(settings)
    part = open_part("part.csv", path, settings=config.csv)
    return read_table([part], config=config, precise=[])


def with_commas(rows: cases.Rows) -> cases.Rows:
    return cases.with_column(rows, 0, lambda cell: cell.replace(".", ","))


class TestDelimiters:
    @pytest.mark.parametrize(
        ("delimiter", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "bar")]
    )
    def test_are_detected_and_reported(self, tmp_path: Path, delimiter: str, name: str) -> None:
        table = read(tmp_path, cases.write(cases.sales(), delimiter=delimiter).encode())

        assert list(table.frame) == list(cases.HEADER)
        assert f"Read as: {name}-separated, UTF-8, decimal point." in table.notes

    def test_of_semicolons_leave_the_comma_as_decimal_sign(self, tmp_path: Path) -> None:
        text = cases.write(with_commas(cases.sales()), delimiter=";")

        table = read(tmp_path, text.encode())

        plain = read(tmp_path, cases.write(cases.sales()).encode())
        assert "Read as: semicolon-separated, UTF-8, decimal comma." in table.notes
        assert table.frame["price"].tolist() == plain.frame["price"].tolist()

    def test_may_occur_in_cells_with_another_delimiter(self, tmp_path: Path) -> None:
        rows = [["a;b;c", "1"], ["d", "2"]] * 20

        table = read(tmp_path, cases.write(rows, ("note; remark", "n")).encode())

        assert list(table.frame) == ["note; remark", "n"]

    def test_of_a_single_column_are_not_invented(self, tmp_path: Path) -> None:
        assert list(read(tmp_path, b"a;b\nx\ny;z;w\n").frame) == ["a;b"]

    def test_in_excels_sep_line_are_used(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), delimiter=";", change={(1, "qty"): "?"})

        with pytest.raises(DataError, match=r'part\.csv line 4: "\?"'):
            read(tmp_path, ("sep=;\r\n" + text).encode())

    def test_may_be_configured(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), delimiter="~")

        assert "price" in read(tmp_path, text.encode(), csv={"delimiter": "~"}).frame

    def test_may_be_more_than_a_byte(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), delimiter="§")

        table = read(tmp_path, text.encode(), csv={"delimiter": "§"})

        plain = read(tmp_path, cases.write(cases.sales()).encode())
        assert table.frame.equals(plain.frame)

    def test_are_named_if_a_row_is_incomplete(self, tmp_path: Path) -> None:
        text = cases.write(cases.sales(), delimiter=";") + "1;2\n"

        with pytest.raises(
            DataError, match=r"line 82 has 2 cells, the header has 4 \(read as semicolon-separated"
        ):
            read(tmp_path, text.encode())


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "name"),
        [
            ("utf-8", "UTF-8"),
            ("utf-8-sig", "UTF-8"),
            ("cp1252", "cp1252"),
            ("latin-1", "cp1252"),
            ("utf-16", "utf-16"),
        ],
    )
    def test_are_detected_and_reported(self, tmp_path: Path, encoding: str, name: str) -> None:
        text = cases.write([["größe", "é"], ["ñ", "1"]] * 20, ("größe", "b"))

        table = read(tmp_path, text.encode(encoding))

        assert list(table.frame) == ["größe", "b"]
        assert table.frame["größe"][0] == "größe"
        assert f"Read as: comma-separated, {name}." in table.notes

    def test_may_be_configured(self, tmp_path: Path) -> None:
        raw = cases.write([["żółw", "1"]] * 3, ("ą", "b")).encode("cp1250")

        assert list(read(tmp_path, raw, csv={"encoding": "cp1250"}).frame) == ["ą", "b"]

    @pytest.mark.parametrize(
        ("raw", "place"),
        [
            (b"a,b\n1,\xff\n", "byte 6, line 2"),
            (b"a,b\n\xc3\xa9,1\n\xe9,2\n", "byte 9, line 3"),
            (b"a,b\n\x81,1\n", "byte 4, line 2"),
        ],
    )
    def test_that_are_doubtful_are_refused_with_the_place(
        self, tmp_path: Path, raw: bytes, place: str
    ) -> None:
        with pytest.raises(DataError, match=rf"part\.csv: not UTF-8 at {place}\..*encoding"):
            read(tmp_path, raw)

    def test_of_utf_16_without_a_mark_are_recognised(self, tmp_path: Path) -> None:
        raw = cases.write(cases.sales()).encode("utf-16-le")

        with pytest.raises(DataError, match="looks like UTF-16 without a byte-order mark"):
            read(tmp_path, raw)
        assert "price" in read(tmp_path, raw, csv={"encoding": "utf-16-le"}).frame

    def test_that_are_configured_wrongly_are_refused(self, tmp_path: Path) -> None:
        raw = "a,b\né,1\n".encode("latin-1")

        with pytest.raises(DataError, match=r"not utf-8-sig at byte 4, line 2"):
            read(tmp_path, raw, csv={"encoding": "utf-8"})


class TestDatasetConfig:
    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({"csv": {"delimiter": ";;"}}, "csv.delimiter"),
            ({"csv": {"decimal": "x"}}, "csv.decimal"),
            ({"csv": {"decimal": ",", "thousands": ","}}, "csv: .*must differ"),
            ({"csv": {"encoding": "klingon"}}, "csv.encoding: .*unknown encoding 'klingon'"),
            ({"csv": {"quote": "'"}}, "csv.quote"),
            ({"bad_cells": "ignore"}, "bad_cells"),
            ({"bad_cell": "missing"}, "unknown field 'bad_cell'; did you mean 'bad_cells'"),
            ({"missing": "NA"}, "missing"),
            ({"group": "a", "time": "b"}, "group and time are mutually exclusive"),
        ],
    )
    def test_errors_name_the_field(self, document: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=rf"^dataset\.json: {message}"):
            parse_dataset_config(json.dumps(document).encode())

    def test_may_begin_with_a_byte_order_mark(self) -> None:
        assert parse_dataset_config(codecs.BOM_UTF8 + b'{"target": "y"}').target == "y"


class TestFiles:
    def fetch(self, workshop: Workshop, folder: Path) -> Any:
        folder.mkdir()
        url = workshop.settings.data_store_url
        return fetch_dataset(url, "m", into=folder, max_bytes=10**9)

    def test_have_a_case_insensitive_suffix(self, workshop: Workshop, tmp_path: Path) -> None:
        workshop.put("m", cases.write(cases.sales()), name="A.CSV")

        assert [part.name for part in self.fetch(workshop, tmp_path / "x").parts] == ["A.CSV"]

    @pytest.mark.parametrize("empty", ["", "\n\n", "\ufeff"])
    def test_that_are_empty_are_skipped_with_a_note(
        self, workshop: Workshop, tmp_path: Path, empty: str
    ) -> None:
        workshop.put("m", cases.write(cases.sales()), name="part-0.csv")
        workshop.put("m", empty, name="part-1.csv")
        workshop.put("m", ",".join(cases.HEADER) + "\n", name="part-2.csv")

        dataset = self.fetch(workshop, tmp_path / "x")

        assert [part.name for part in dataset.parts] == ["part-0.csv", "part-2.csv"]
        assert dataset.notes == [
            "Skipped empty files: part-1.csv.",
            "Files without rows: part-2.csv.",
        ]

    def test_that_are_empty_are_not_all_named(self, workshop: Workshop, tmp_path: Path) -> None:
        workshop.put("m", cases.write(cases.sales()), name="part-full.csv")
        for i in range(30):
            workshop.put("m", "", name=f"part-{i:02}.csv")

        [note] = self.fetch(workshop, tmp_path / "x").notes

        assert note.endswith("part-03.csv, part-04.csv and 25 more.")

    def test_in_several_dialects_are_reported_by_dialect(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        for i in range(3):
            workshop.put("m", cases.write(cases.sales(), delimiter=";"), name=f"{i}.csv")
        workshop.put("m", cases.write(cases.sales()), name="x.csv")
        dataset = self.fetch(workshop, tmp_path / "x")

        notes = read_table(dataset.parts, config=dataset.config, precise=[], target="bought").notes

        assert notes == [
            "Read as semicolon-separated, UTF-8, decimal point: 0.csv and 2 other files.",
            "Read as comma-separated, UTF-8, decimal point: x.csv.",
        ]

    def test_that_are_all_empty_are_refused(self, workshop: Workshop, tmp_path: Path) -> None:
        workshop.put("m", "", name="part.csv")
        workshop.put("m", b"", name="part.parquet")

        with pytest.raises(DataError, match=r"part\.csv: the file is empty"):
            self.fetch(workshop, tmp_path / "x")

    def test_with_the_same_content_are_named(self, workshop: Workshop, tmp_path: Path) -> None:
        for name in ("a.csv", "a copy.csv", "b.csv"):
            workshop.put("m", cases.write(cases.sales(40 if name[0] == "b" else 80)), name=name)

        assert self.fetch(workshop, tmp_path / "x").warnings == [
            "Files with the same content, so their rows count twice: "
            "a.csv (the same as a copy.csv)."
        ]

    def test_with_different_columns_are_refused_by_name(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        workshop.put("m", "a,b\n1,2\n", name="1.csv")
        workshop.put("m", "a,c\n1,2\n", name="2.csv")
        dataset = self.fetch(workshop, tmp_path / "x")

        with pytest.raises(DataError, match=r"of 1\.csv: 'c' is new, 'b' is missing\."):
            read_table(dataset.parts, config=dataset.config, precise=[])


class TestPandasIndex:
    def test_is_ignored_in_csv_and_reported(self, tmp_path: Path) -> None:
        for name in ("", "Unnamed: 0"):
            rows = [[str(i), *row] for i, row in enumerate(cases.sales())]

            table = read(tmp_path, cases.write(rows, (name, *cases.HEADER)).encode())

            assert list(table.frame) == list(cases.HEADER)
            assert list(table.ignored.values()) == ["pandas' index"]

    def test_that_continues_from_another_part_is_ignored(self, tmp_path: Path) -> None:
        rows = [[str(i + 500), *row] for i, row in enumerate(cases.sales())]

        assert read(tmp_path, cases.write(rows, ("", *cases.HEADER)).encode()).ignored

    def test_keeps_the_lines_of_bad_cells(self, tmp_path: Path) -> None:
        rows = [[str(i), *row] for i, row in enumerate(cases.sales())]
        text = cases.write(rows, ("", *cases.HEADER), change={(3, "qty"): "?"})

        with pytest.raises(DataError, match=r'line 5: "\?"'):
            read(tmp_path, text.encode())

    def test_does_not_excuse_a_column_without_a_name(self, tmp_path: Path) -> None:
        rows = [["x", *row] for row in cases.sales()]

        with pytest.raises(DataError, match="column 1 has no name"):
            read(tmp_path, cases.write(rows, ("", *cases.HEADER)).encode())
