"""Bad data is reported in one line; column kinds are decided as documented."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.records import Column, Signature
from tests.integration.trainer.conftest import Workshop
from trainer.data.config import DatasetConfig
from trainer.data.download import fetch_dataset
from trainer.data.formats import open_part
from trainer.data.problem import Problem, define_problem
from trainer.data.table import Table, read_table
from trainer.errors import DataError
from trainer.modelling.encoding import encode

READ_AND_PRINT_MEMORY = """
import sys
from pathlib import Path
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.table import read_table

def memory(name):
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) * 1024

part = open_part("part.csv", Path(sys.argv[1]))
before = memory("VmRSS")
table = read_table([part], config=DatasetConfig(), precise=[])
assert table.kinds["a"] == "text"
print(memory("VmHWM") - before)
"""
GOOD = "a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40))


def read(path: Path, raw: bytes, **settings: Any) -> Table:
    """Reads one CSV part as a table."""
    path.write_bytes(raw)
    part = open_part("part.csv", path)
    return read_table([part], config=DatasetConfig(**settings), precise=[])


def problem(path: Path, *, task: Any = None, **columns: list[str]) -> Problem:
    """Defines the problem of predicting `y` from the other columns."""
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    table = read(path, "\n".join(lines).encode())
    return define_problem(table, target="y", task=task, config=DatasetConfig(), known_kinds={})


class TestBadData:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "empty"),
            (b"\n\n", "empty"),
            (b"a,y\n", "only 0 rows"),
            (b"a,y\n1,2,3\n", "line 2 has 3 cells, the header has 2"),
            (b"a,y\n1,2\n3\n", "line 3 has 1 cell, the header has 2"),
            (b'a,y\n"1,2\n', "line 2: unexpected end of data"),
            (b"a,y\n1,2\n\x00\x00\n", "line 3 has 1 cell, the header has 2"),
            (b"a,y\n1,\xff\n", "not UTF-8 at byte 6"),
            (b"a,a\n1,2\n", "duplicate column 'a'"),
            (b"a,,y\n1,2,3\n", "column 2 has no name"),
            (b"a,b\n1,2\n", "target column 'y' does not exist"),
            (b"a,y\n" + b"1,\n" * 40, "0 of 40 rows have a target"),
            (b"a,y\n" + b"1,2\n" * 19, "only 19 rows"),
            (b"a,y\n" + b"1,2\n" * 40, "only one value"),
            (b"y\n" + b"1\n2\n" * 40, "no feature columns, only the target"),
            (b"a,y\n1e39,0\n" + b"1,2\n" * 40, "'a' has numbers too large for 32-bit"),
            (b"a,y\ninf,0\n" + b"1,2\n" * 40, "'a' has numbers too large for 32-bit"),
            (b"a,y\n" + b"".join(b"1,t%d\n" % i for i in range(40)), "40 distinct values"),
            (b"a,y\n" + b"".join(b"1,%d\n" % (i // 2) for i in range(20)), "too small"),
            (b"a,y\n" + b"1,2\n2,3\n" * 20 + b"3,4\n\r,", "found 42 rows on the first pass and 41"),
        ],
    )
    def test_is_reported_in_one_line_and_publishes_nothing(
        self, workshop: Workshop, content: bytes, message: str
    ) -> None:
        workshop.put("m", content)

        with pytest.raises(DataError, match=message) as failure:
            workshop.train("m", target="y")

        assert "\n" not in str(failure.value)
        assert str(workshop.home) not in str(failure.value)
        assert workshop.store.list_versions("m") == []

    def test_parts_must_have_the_same_header(self, workshop: Workshop) -> None:
        workshop.put("m", GOOD, name="1.csv")
        workshop.put("m", "y,a\n1,2\n", name="2.csv")

        with pytest.raises(DataError, match=r"2\.csv: its header differs from that of 1\.csv"):
            workshop.train("m", target="y")

    @pytest.mark.parametrize("model", ["nothing", "../data", "A b", ""])
    def test_a_model_without_a_folder_or_with_a_bad_name_is_refused(
        self, workshop: Workshop, model: str
    ) -> None:
        with pytest.raises(DataError, match=r"has no data folder|not a model name"):
            fetch_dataset(
                workshop.settings.data_store_url, model, into=workshop.home, max_bytes=1000
            )

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ("{", "the document: Invalid JSON"),
            ('{"task": "clustering"}', "task: Input should be"),
            (
                '{"target": "y", "metric": "rmse"}',
                "metric 'rmse' does not suit classification; use 'log_loss' or 'accuracy'",
            ),
            ('{"target": "t", "task": "regression"}', "'t' is text"),
            ('{"target": "f", "task": "classification"}', "'f' has fractions"),
            (
                '{"target": "a", "task": "classification"}',
                "'a' has 201 classes; the maximum is 200",
            ),
            (
                '{"target": "i", "task": "classification"}',
                "'i' has 201 classes; the maximum is 200",
            ),
        ],
    )
    def test_an_unsuitable_configuration_is_refused(
        self, workshop: Workshop, document: str, message: str
    ) -> None:
        rows = [(i, i % 2, "even" if i % 2 else "odd", i / 7, f"no {i}") for i in range(201)]
        workshop.put_rows("m", ["a", "y", "t", "f", "i"], rows)
        workshop.put("m", document, name="dataset.json")

        with pytest.raises(DataError, match=message):
            workshop.train("m")


class TestColumns:
    @pytest.mark.parametrize(
        ("cells", "kind"),
        [
            ("1 2.5 -3e2 NA", "number"),
            ("true False NA", "boolean"),
            ("1 2 about", "text"),
            ("0 true", "text"),
            ("NA NA", None),
        ],
    )
    def test_kinds_are_detected(self, tmp_path: Path, cells: str, kind: str | None) -> None:
        raw = "\n".join(["a", *cells.split()]).encode()

        assert read(tmp_path / "part", raw).kinds == {"a": kind}

    def test_a_kind_may_be_configured_if_the_cells_match_it(self, tmp_path: Path) -> None:
        codes = read(tmp_path / "part", b"a\n01\n02\n", columns={"a": "text"})

        assert codes.kinds == {"a": "text"}
        assert list(codes.frame["a"]) == ["01", "02"]
        with pytest.raises(DataError, match=r'cells that are not true or false: .* 2: "01"'):
            read(tmp_path / "part", b"a\n01\n02\n", columns={"a": "boolean"})

    def test_placeholders_are_missing_values(self, tmp_path: Path) -> None:
        frame = read(tmp_path / "part", b"a,b\n1,x\nNA, \nnull,None\n").frame

        assert frame["a"].isna().tolist() == [False, True, True]
        assert frame["b"].isna().tolist() == [False, True, False]

    def test_an_absent_column_is_all_missing(self, tmp_path: Path) -> None:
        columns = [Column(name="a", kind="number"), Column(name="gone", kind="boolean")]

        signature = Signature(task="regression", target="y", columns=columns, classes=None)
        features = encode(read(tmp_path / "part", b"a\n1\nNA\n").frame, signature)

        assert isinstance(features, np.ndarray)
        assert features.dtype == np.float32
        assert np.isnan(features).tolist() == [[False, True], [True, True]]

    @pytest.mark.parametrize(
        ("target", "task", "classes"),
        [
            (["b", "a"], None, ["a", "b"]),
            (["TRUE", "false"], None, [False, True]),
            (["10", "2"], None, [2, 10]),
            (["1.0", "0.0"], None, [0, 1]),
            (["1.5", "2.5"], None, None),
            (["10", "2"], "regression", None),
            (["true", "false"], "regression", None),
        ],
    )
    def test_the_target_decides_the_task(
        self, tmp_path: Path, target: list[str], task: Any, classes: list[Any] | None
    ) -> None:
        found = problem(tmp_path / "part", a=["1"] * 40, y=target * 20, task=task)

        assert found.signature.classes == classes
        assert list(map(type, found.signature.classes or [])) == list(map(type, classes or []))

    def test_many_distinct_integers_are_a_regression(self, tmp_path: Path) -> None:
        for count, task in ((20, "classification"), (21, "regression")):
            cells = [str(i % count) for i in range(42)]
            assert problem(tmp_path / "part", a=["1"] * 42, y=cells).signature.task == task

    def test_a_long_class_is_stored_once_not_in_every_row(self, tmp_path: Path) -> None:
        labels = problem(tmp_path / "part", a=["1"] * 40, y=["x", "l" * 5000] * 20).labels

        assert labels.nbytes < 5000

    @pytest.mark.costly
    def test_text_is_unchanged_across_blocks(self, tmp_path: Path) -> None:
        cells = [str(i * i % 250_007) if i % 7 else "" for i in range(450_000)]

        table = read(tmp_path / "part", ("a\n_" + "\n_".join(cells) + "\n").encode())

        assert table.frame["a"].astype(object).tolist() == [f"_{cell}" for cell in cells]
        assert table.frame["a"].cat.categories.is_unique

    @pytest.mark.slow
    def test_distinct_text_takes_at_most_four_times_its_size(self, tmp_path: Path) -> None:
        part = tmp_path / "part"
        part.write_text("a\n" + "".join(f"t{i:0120d}\n" for i in range(1_000_000)))

        done = subprocess.run(
            [sys.executable, "-c", READ_AND_PRINT_MEMORY, str(part)],
            capture_output=True,
            check=True,
            timeout=120,
        )

        assert int(done.stdout) <= 4 * part.stat().st_size
