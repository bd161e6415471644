"""Data that cannot be trained on is told in one line; what columns mean is decided as promised."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.common.model_store import Column
from tests.trainer.conftest import Workshop
from trainer.columns import encode, guess_kind, state_problem
from trainer.data import parse_csv, read_dataset
from trainer.errors import DataError
from trainer.split import assign_folds, hold_out

GOOD = "a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40))


def table(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=str)


class TestBadData:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "empty"),
            (b"\n\n", "empty"),
            (b"a,y\n", "0 of 0 rows"),
            (b"a,y\n1,2,3\n", "line 2 has 3 cells, the header has 2"),
            (b"a,y\n1,2\n3\n", "line 3 has 1 cells, the header has 2"),
            (b'a,y\n"1,2\n', "line 2: unexpected end of data"),
            (b"a,y\n1,\xff\n", "not UTF-8 at byte 6"),
            (b"a,a\n1,2\n", "'a' is there more than once"),
            (b"a,,y\n1,2,3\n", "column 2 has no name"),
            (b"a,b\n1,2\n", "no column 'y'"),
            (b"a,y\n" + b"1,\n" * 40, "0 of 40 rows have a target"),
            (b"a,y\n" + b"1,2\n" * 19, "19 of 19 rows"),
            (b"a,y\n" + b"1,2\n" * 40, "one value only"),
            (b"y\n" + b"1\n2\n" * 40, "no column besides the target"),
            (b"a,y\n1e39,0\n" + b"1,2\n" * 40, "'a' has numbers beyond 32-bit"),
            (b"a,y\ninf,0\n" + b"1,2\n" * 40, "'a' has numbers beyond 32-bit"),
            (b"a,y\n" + b"".join(b"1,t%d\n" % i for i in range(40)), "40 different values"),
            (b"a,y\n" + b"".join(b"1,%d\n" % (i // 2) for i in range(20)), "too small"),
        ],
    )
    def test_is_told_in_one_line_and_publishes_nothing(
        self, workshop: Workshop, content: bytes, told: str
    ) -> None:
        workshop.put("m", content)

        with pytest.raises(DataError, match=told) as failure:
            workshop.train("m", target="y")

        assert "\n" not in str(failure.value)
        assert str(workshop.home) not in str(failure.value)
        assert workshop.store.list_versions("m") == []

    def test_parts_must_have_the_same_header(self, workshop: Workshop) -> None:
        workshop.put("m", GOOD, name="1.csv")
        workshop.put("m", "y,a\n1,2\n", name="2.csv")

        with pytest.raises(DataError, match=r"2\.csv: its header is not the one of 1\.csv"):
            workshop.train("m", target="y")

    @pytest.mark.parametrize("model", ["nothing", "../data", "A b", ""])
    def test_a_model_without_a_folder_or_with_a_bad_name(
        self, workshop: Workshop, model: str
    ) -> None:
        with pytest.raises(DataError, match=r"no data for|not a model name"):
            read_dataset(workshop.settings.data_store_url, model)

    @pytest.mark.parametrize(
        ("document", "told"),
        [
            ("{", "the document: Invalid JSON"),
            ('{"task": "clustering"}', "task: Input should be"),
            ('{"target": "y", "metric": "rmse"}', "rmse does not suit classification"),
            ('{"target": "t", "task": "regression"}', "'t' is text"),
            ('{"target": "f", "task": "classification"}', "'f' has fractions"),
        ],
    )
    def test_statements_that_do_not_suit(
        self, workshop: Workshop, document: str, told: str
    ) -> None:
        rows = [(i, i % 2, "even" if i % 2 else "odd", i / 7) for i in range(40)]
        workshop.put_rows("m", ["a", "y", "t", "f"], rows)
        workshop.put("m", document, name="dataset.json")

        with pytest.raises(DataError, match=told):
            workshop.train("m")


class TestColumns:
    @pytest.mark.parametrize(
        ("cells", "kind"),
        [
            (["1", "2.5", "-3e2", None], "number"),
            (["true", "False", None], "boolean"),
            (["1", "2", "about 3"], "text"),
            (["0", "true"], "text"),
            ([None, None], "number"),
        ],
    )
    def test_kinds_are_guessed(self, cells: list[str | None], kind: str) -> None:
        assert guess_kind(pd.Series(cells, dtype=str)) == kind

    def test_cells_that_say_missing_are(self) -> None:
        read = parse_csv("p", b"a,b\n1,x\nNA, \nnull,None\n")

        assert read["a"].isna().tolist() == [False, True, True]
        assert read["b"].isna().tolist() == [False, True, False]

    def test_a_column_that_is_not_there_is_missing(self) -> None:
        columns = [Column(name="a", kind="number"), Column(name="gone", kind="boolean")]

        features = encode(table(a=["1", "x"]), columns)

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
    def test_a_task_is_chosen_by_the_target(
        self, target: list[str], task: Any, classes: list[Any] | None
    ) -> None:
        rows = table(a=["1"] * 40, y=target * 20)

        signature = state_problem(rows, target="y", task=task).signature

        assert signature.classes == classes
        assert list(map(type, signature.classes or [])) == list(map(type, classes or []))

    def test_many_integers_are_values(self) -> None:
        for count, task in ((20, "classification"), (21, "regression")):
            rows = table(a=["1"] * 42, y=[str(i % count) for i in range(42)])
            assert state_problem(rows, target="y", task=None).signature.task == task


class TestSplit:
    def test_rows_stay_held_out_when_more_data_arrives(self) -> None:
        cells = [str(i) for i in range(400)]
        before = state_problem(table(a=cells[:200], y=["0", "1"] * 100), target="y", task=None)
        after = state_problem(table(a=cells, y=["0", "1"] * 200), target="y", task=None)

        first, then = hold_out(before, seed=0), hold_out(after, seed=0)

        assert (first == then[:200]).mean() > 0.9
        assert 90 <= then.sum() <= 110
        assert (hold_out(before, seed=1) != first).any()

    def test_every_class_is_held_out_and_in_every_fold_where_it_can_be(self) -> None:
        labels = ["common"] * 90 + ["rare"] * 8 + ["single"]
        problem = state_problem(
            table(a=[str(i) for i in range(99)], y=labels), target="y", task=None
        )

        held_out = hold_out(problem, seed=0)
        folds = assign_folds(problem, seed=0, training=~held_out, most=5)

        assert set(problem.labels[held_out]) == {"common", "rare"}
        assert (folds[held_out] == -1).all()
        assert folds[-1] == -1
        for fold in range(5):
            assert set(problem.labels[folds == fold]) >= {"common", "rare"}
