"""Times, sentences, identifiers and codes: guessed, stated, refused, and of use to a model."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.datetimes import format_time
from registry.runtimes.onnx import OnnxRuntime
from registry.tolerances import is_as_recorded
from services.inference.models.inputs import Inputs
from tests.integration.trainer.conftest import Workshop
from trainer.data import config
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.table import Table, read_table
from trainer.errors import DataError

WORDS = (
    *("the", "room", "was", "in", "a", "street", "near", "that", "old", "house", "with", "two"),
    *("small", "windows", "and", "some", "light"),
)


def read(folder: Path, *lines: str, previous: Any = None, **settings: Any) -> Table:
    path = folder / "part"
    path.write_text("\n".join(lines) + "\n")
    stated = DatasetConfig.model_validate(settings)
    part = open_part("part.csv", path, settings=stated.csv)
    return read_table([part], config=stated, precise=[], previous=previous)


def sentence(chance: random.Random, *more: str) -> str:
    return " ".join(chance.sample([*chance.sample(WORDS, 7), *more], 7 + len(more)))


def sentences(count: int = 60) -> list[str]:
    chance = random.Random(1)
    return [sentence(chance) for _ in range(count)]


class TestDates:
    @pytest.mark.parametrize(
        ("cell", "time"),
        [
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T14:05:00+02:00", "2026-01-31T12:05:00Z"),
            ("2026-01-31 14:05:00.5Z", "2026-01-31T14:05:00.500000Z"),
            ("2026/1/31", "2026-01-31T00:00:00Z"),
            ("31.01.2026 14:05", "2026-01-31T14:05:00Z"),
            ("31/01/2026", "2026-01-31T00:00:00Z"),
            ('"1/31/2026, 2:05 PM"', "2026-01-31T14:05:00Z"),
            ("31-Jan-2026", "2026-01-31T00:00:00Z"),
            ('"January 31, 2026"', "2026-01-31T00:00:00Z"),
        ],
    )
    def test_are_read_as_people_write_them(self, tmp_path: Path, cell: str, time: str) -> None:
        table = read(tmp_path, "at,y", f"{cell},1", "NA,2")

        assert table.kinds["at"] == "datetime"
        assert format_time(table.frame["at"][0]) == time
        assert table.frame["at"].isna().tolist() == [False, True]
        assert any("Column 'at' is read as dates" in note for note in table.notes)

    def test_of_which_day_and_month_are_unclear_are_refused_with_the_places(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError) as caught:
            read(tmp_path, "at,y", "01/02/2026,1", "03/04/2026,2")

        assert str(caught.value) == (
            "Column 'at': its dates may have the day or the month first: "
            'part.csv line 2: "01/02/2026", part.csv line 3: "03/04/2026". '
            'Set "csv": {"dates": "day-first"} or {"dates": "month-first"} in dataset.json.'
        )

    def test_with_both_orders_in_one_column_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="may have the day or the month first"):
            read(tmp_path, "at,y", "31/01/2026,1", "01/31/2026,2", "01/02/2026,2")

    def test_are_settled_by_the_setting_or_by_another_column(self, tmp_path: Path) -> None:
        lines = ("at,until", "01/02/2026,02/03/2026", "03/04/2026,12/31/2026")

        by_column = read(tmp_path, *lines)
        by_setting = read(tmp_path, *[line[:13] for line in lines], csv={"dates": "day-first"})

        assert format_time(by_column.frame["at"][0]) == "2026-01-02T00:00:00Z"
        assert format_time(by_setting.frame.iloc[0, 0]) == "2026-02-01T00:00:00Z"

    def test_that_do_not_exist_are_bad_cells(self, tmp_path: Path) -> None:
        lines = ["at,y", *(f"2026-02-{day:02},1" for day in range(1, 29)), "2026-02-30,1"]

        with pytest.raises(DataError, match=r'1 cell that is not a date: .* 30: "2026-02-30"'):
            read(tmp_path, *lines)
        assert read(tmp_path, *lines, bad_cells="missing").frame["at"].isna().sum() == 1

    @pytest.mark.parametrize("scale", [1, 1000, 1_000_000])
    def test_may_be_stated_for_numbers_of_seconds_or_less(self, tmp_path: Path, scale: int) -> None:
        table = read(tmp_path, "at,y", f"{1_700_000_000 * scale},1", columns={"at": "datetime"})

        assert format_time(table.frame["at"][0]) == "2023-11-14T22:13:20Z"

    def test_in_parquet_are_times_and_stay_text_in_a_model_that_has_them_as_text(
        self, tmp_path: Path
    ) -> None:
        stamps = pa.array([1_700_000_000_000_000, None], pa.timestamp("us", tz="Europe/Berlin"))
        pq.write_table(pa.table({"at": stamps}), tmp_path / "p.parquet")
        part = open_part("p.parquet", tmp_path / "p.parquet")

        new = read_table([part], config=DatasetConfig(), precise=[])
        old = read_table([part], config=DatasetConfig(), precise=[], previous={"at": "text"})

        assert format_time(new.frame["at"][0]) == "2023-11-14T22:13:20Z"
        assert (new.kinds["at"], old.kinds["at"]) == ("datetime", "text")

    def test_of_a_model_that_has_them_as_text_stay_text_with_a_warning(
        self, tmp_path: Path
    ) -> None:
        table = read(tmp_path, "at,y", "2026-01-31,1", previous={"at": "text"})

        assert table.kinds["at"] == "text"
        assert table.warnings == [
            "Column 'at' looks like datetime, but stays text, as in the previous version; to "
            'change it, set "columns": {"at": "datetime"} in dataset.json.'
        ]


class TestSentences:
    def test_are_long_and_mostly_unique(self, tmp_path: Path) -> None:
        long, few = sentences(), ["a b c d e", "f g h i j"] * 30
        lines = [f"{a},{b},{i % 7}" for i, (a, b) in enumerate(zip(long, few, strict=True))]

        table = read(tmp_path, "review,phrase,y", *lines)

        assert table.kinds == {"review": "sentence", "phrase": "text", "y": "number"}
        assert "Column 'review' is read as sentences, which count by their words." in table.notes

    def test_may_be_stated_or_denied(self, tmp_path: Path) -> None:
        lines = ["a,b,y", *(f"{text},x{i % 3},1" for i, text in enumerate(sentences()))]

        table = read(tmp_path, *lines, columns={"a": "text", "b": "sentence"})

        assert (table.kinds["a"], table.kinds["b"]) == ("text", "sentence")

    def test_keep_the_kind_of_the_previous_version(self, tmp_path: Path) -> None:
        lines = ["a,b,y", *(f"{text},x{i % 3},1" for i, text in enumerate(sentences()))]

        table = read(tmp_path, *lines, previous={"a": "text", "b": "sentence"})

        assert (table.kinds["a"], table.kinds["b"]) == ("text", "sentence")
        assert "looks like sentence, but stays text" in table.warnings[0]


class TestIdentifiers:
    @pytest.mark.parametrize("name", ["customer-{}", "{}"])
    def test_are_ignored_with_a_warning(self, tmp_path: Path, name: str) -> None:
        lines = [f"{name.format(1000 + 7 * i)},{i % 5},{i % 2}" for i in range(40)]

        table = read(tmp_path, "id,x,y", *lines)

        assert list(table.frame) == ["x", "y"]
        assert table.ignored == {"id": "looks like an identifier"}
        assert "Column 'id' is ignored, because it looks like an identifier" in table.warnings[0]

    @pytest.mark.parametrize(
        "options", [{"columns": {"id": "text"}}, {"previous": {"id": "text", "x": "number"}}]
    )
    def test_are_used_if_stated_or_in_the_previous_version(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        lines = [f"customer-{i},{i % 5},{i % 2}" for i in range(40)]

        assert "id" in read(tmp_path, "id,x,y", *lines, **options).frame

    def test_are_no_numbers_that_fall_repeat_or_have_fractions(self, tmp_path: Path) -> None:
        lines = [f"{-i},{i // 2},{i + 0.5},{i % 2}" for i in range(40)]

        assert list(read(tmp_path, "a,b,c,y", *lines).frame) == ["a", "b", "c", "y"]

    @pytest.mark.costly
    def test_are_used_if_there_is_no_other_feature(self, workshop: Workshop) -> None:
        workshop.put_rows("m", ["id", "y"], [(i, i % 2) for i in range(80)])
        workshop.configure("m", target="y")

        outcome = workshop.train("m")

        assert "Column 'id' is used, although it looks like an identifier" in outcome.warnings[0]


class TestCells:
    def test_with_leading_zeros_stay_text(self, tmp_path: Path) -> None:
        table = read(tmp_path, "zip,hour,y", "01067,1,1", "80331,2,2")

        assert table.frame["zip"].tolist() == ["01067", "80331"]
        assert "Column 'zip' has numbers with leading zeros, and is read as text." in table.notes

    def test_with_leading_zeros_stay_numbers_if_stated_or_known(self, tmp_path: Path) -> None:
        lines = ("n,y", "007,1", "8,2")

        stated = read(tmp_path, *lines, columns={"n": "number"})
        known = read(tmp_path, *lines, previous={"n": "number"})

        assert stated.frame["n"].tolist() == known.frame["n"].tolist() == [7, 8]
        assert "looks like text, but stays number" in known.warnings[0]

    def test_of_yes_and_no_are_booleans(self, tmp_path: Path) -> None:
        table = read(tmp_path, "sold,y", "Yes,1", "no,2", "NA,3")

        assert table.kinds["sold"] == "boolean"
        assert table.frame["sold"].tolist()[:2] == [1, 0]
        assert any("yes is true, and no is false" in note for note in table.notes)

    @pytest.mark.parametrize(
        "text",
        [
            "a;b;\n1,5;x;\n2,5;y;\n",
            "a;b\n1,5;x;\n2,5;y;\n",
            "a;b\n\n1,5;x\n   \n2,5;y\n\n",
            'a;b;\r\n1,5;"x";\r\n\r\n2,5;y\r\n',
            "a;b;;;\n1,5;x;;;\n2,5;y;;;\n",
            "a;b\n1,5;x;;\n2,5;y;\n",
        ],
    )
    def test_after_the_last_column_and_blank_lines_are_dropped(
        self, tmp_path: Path, text: str
    ) -> None:
        table = read(tmp_path, *text.splitlines())

        assert list(table.frame) == ["a", "b"]
        assert table.frame["a"].tolist() == [1.5, 2.5]
        assert table.frame["b"].tolist() == ["x", "y"]

    def test_after_the_last_column_are_refused_if_they_have_values(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"part\.csv: column 3 has no name"):
            read(tmp_path, "a;b;", "1;x;7", *["2;y;"] * 5)
        with pytest.raises(DataError, match="line 7 has 3 cells, the header has 2"):
            read(tmp_path, "a;b", *["1;x"] * 5, "2;y;7")

    def test_with_line_breaks_keep_the_lines_of_later_cells(self, tmp_path: Path) -> None:
        rows = ['"one\ntwo",1', *(f"x,{i}" for i in range(20)), "x,bad"]

        with pytest.raises(DataError, match=r'part\.csv line 24: "bad"'):
            read(tmp_path, "a,b", *rows)

    def test_under_the_same_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"part\.csv: duplicate column 'a'; rename one"):
            read(tmp_path, "a,b,a", "1,2,3")
        with pytest.raises(DataError, match="'a' and 'a ' differ only in white space; rename one"):
            read(tmp_path, "a,b,a ", "1,2,3")

    def test_that_are_dropped_are_stated(self, tmp_path: Path) -> None:
        table = read(tmp_path, "a;b;", "", "1,5;x;", "  ", "2,5;y;")

        assert table.notes[:2] == [
            "Read as: semicolon-separated, UTF-8, decimal comma, delimiters at line ends.",
            "Ignored 2 blank lines.",
        ]

    def test_that_are_missing_in_most_rows_do_not_hide_the_delimiter(self, tmp_path: Path) -> None:
        table = read(tmp_path, "a;b;c", "1;2;", "3;4;", ";;", "5;6;7")

        assert list(table.frame) == ["a", "b", "c"]
        assert table.frame["a"].tolist()[:2] == [1, 3]


class TestModels:
    """Each target depends on one column alone, which as a category would be worthless."""

    def train(self, workshop: Workshop, model: str, rows: Any, **fields: Any) -> float:
        workshop.put_rows(model, ["noise", "signal", "y"], rows)
        workshop.configure(model, target="y", **fields)
        outcome = workshop.train(model, force=True, reason="to compare")
        assert outcome.serving == "onnx"
        return float(outcome.metrics["candidate"]["accuracy"])

    @pytest.mark.costly
    def test_of_weekdays_need_dates(self, workshop: Workshop) -> None:
        chance = random.Random(2)
        rows = []
        for _ in range(400):
            day = chance.randrange(2000)
            date = format_time(day * 86400.0)[:10]
            rows.append((round(chance.random(), 3), date, (day + 3) % 7 >= 5))

        as_text = self.train(workshop, "text", rows, columns={"signal": "text"})
        as_dates = self.train(workshop, "dates", rows)

        assert as_dates > 0.97
        assert as_dates > as_text + 0.1

    @pytest.mark.costly
    def test_of_words_need_sentences(self, workshop: Workshop) -> None:
        chance = random.Random(3)
        rows = []
        for _ in range(400):
            is_good = chance.random() < 0.5
            text = sentence(chance, "wonderful" if is_good else "dreadful")
            rows.append((round(chance.random(), 3), text, "good" if is_good else "bad"))

        as_text = self.train(workshop, "text", rows, columns={"signal": "text"})
        as_sentences = self.train(workshop, "sentences", rows)

        assert as_sentences > 0.97
        assert as_sentences > as_text + 0.3

    @pytest.mark.costly
    def test_answer_requests_as_in_training(self, workshop: Workshop) -> None:
        """Every kind of column, decoded as inference does and run as it is served."""
        chance = random.Random(4)
        rows = []
        for i in range(240):
            cells = [
                format_time(chance.randrange(10**9)),
                sentence(chance, "wonderful" if i % 3 else "dreadful"),
                f"town {chance.randrange(80)}",
                i % 2 == 0,
                round(chance.random(), 3),
            ]
            rows.append([*("" if chance.random() < 0.1 else cell for cell in cells), i % 3])
        workshop.put_rows("m", ["at", "review", "town", "sold", "n", "y"], rows)
        workshop.configure("m", target="y", estimators=["linear", "lightgbm", "xgboost"])

        manifest = workshop.manifest(workshop.train("m", force=True, reason="to serve it"))

        assert [column.kind for column in manifest.signature.columns] == [
            "datetime",
            "sentence",
            "text",
            "boolean",
            "number",
        ]
        runtime = OnnxRuntime(workshop.store.read_file(manifest, "model.onnx"), manifest.signature)
        inputs = Inputs(manifest.signature)
        answer = runtime.run(inputs.decode(manifest.warm_up.rows), probabilities=True)
        assert is_as_recorded(manifest.warm_up, answer.predictions, answer.probabilities)
        blank = runtime.run(inputs.decode([[None] * 5, ["NA", "", "unseen", None, None]]))
        assert set(blank.predictions) <= {0, 1, 2}
        assert manifest.statistics is not None
        kinds = {each.name: each.edges is not None for each in manifest.statistics.columns}
        assert kinds == {"at": False, "review": True, "town": False, "sold": False, "n": True}

    @pytest.mark.costly
    def test_encode_rare_categories_by_the_target(self, workshop: Workshop) -> None:
        chance = random.Random(5)
        effects = [chance.uniform(-10, 10) for _ in range(200)]
        rows = []
        for _ in range(2_000):
            town = chance.randrange(200)
            rows.append((round(chance.random(), 3), f"town {town}", effects[town]))
        workshop.put_rows("m", ["noise", "town", "y"], rows)
        workshop.configure("m", target="y")

        outcome = workshop.train("m")

        assert outcome.serving == "onnx"
        assert outcome.metrics["candidate"]["r2"] > 0.9

    def test_without_the_boosters_train_as_before(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        families = DatasetConfig().families(rows=1_000)
        monkeypatch.setattr(config, "find_spec", lambda name: None)
        workshop.put_rows("m", ["a", "b", "y"], [(i % 7, i % 5, i % 2) for i in range(40)])

        assert families[3:] == ["lightgbm", "xgboost"]
        assert DatasetConfig().families(rows=1_000) == families[:3]
        assert DatasetConfig().families(rows=999) == families[:3]
        workshop.configure("m", target="y", estimators=["xgboost"])
        with pytest.raises(DataError, match=r"'xgboost' needs packages .* pip install"):
            workshop.train("m")
