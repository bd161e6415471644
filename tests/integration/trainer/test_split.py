"""Held-out rows are stable, whole groups, or the newest; models know every class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.trainer.conftest import Workshop
from trainer.data import split
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.problem import Problem, define_problem
from trainer.data.split import hash_rows, hold_out, make_folds, thin_out
from trainer.data.table import read_table
from trainer.errors import DataError

Columns = dict[str, list[Any]]


def problem(path: Path, columns: Columns, **settings: Any) -> Problem:
    rows = [map(str, row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]) + "\n")
    config = DatasetConfig(**settings)
    table = read_table([open_part("part.csv", path)], config=config, precise=["y"], target="y")
    return define_problem(table, target="y", task=None, config=config, known_kinds={})


def held_out_of(problem: Problem, *, seed: int = 0, share: float = 0.25) -> Any:
    return hold_out(problem, hash_rows(problem, seed=seed, by=[]), share=share)


class TestRows:
    def test_stay_held_out_when_more_data_arrives(self, tmp_path: Path) -> None:
        before = problem(tmp_path / "p", {"a": list(range(200)), "y": [0, 1] * 100})
        after = problem(tmp_path / "p", {"a": list(range(400)), "y": [0, 1] * 200})

        first, then = held_out_of(before), held_out_of(after)

        assert (first == then[:200]).mean() > 0.9
        assert 90 <= then.sum() <= 110
        assert (held_out_of(before, seed=1) != first).any()

    def test_have_the_same_hashes_for_any_block_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [f"t{i % 150}" if i % 9 else "" for i in range(200)]
        columns: Columns = {"a": list(range(200)), "self": texts, "y": [0, 1] * 100}
        found = problem(tmp_path / "p", columns)

        together = hash_rows(found, seed=0, by=[])
        monkeypatch.setattr(split, "ROWS_PER_BLOCK", 30)

        assert (hash_rows(found, seed=0, by=[]) == together).all()

    def test_stay_held_out_when_a_column_arrives(self, tmp_path: Path) -> None:
        columns: Columns = {"a": list(range(200, 0, -1)), "y": [0, 1] * 100}
        before = problem(tmp_path / "p", columns)
        after = problem(tmp_path / "p", {"new": [1, 2] * 100, **columns})

        hashes = hash_rows(after, seed=0, by=["a"])

        assert (hold_out(after, hashes, share=0.25) == held_out_of(before)).all()

    def test_of_every_class_are_held_out_and_in_every_fold(self, tmp_path: Path) -> None:
        labels = ["common"] * 90 + ["rare"] * 8 + ["single"]
        found = problem(tmp_path / "p", {"a": list(range(99)), "y": labels})
        hashes = hash_rows(found, seed=0, by=[])

        held_out = hold_out(found, hashes, share=0.25)
        training = np.flatnonzero(~held_out)
        folds = make_folds(found, hashes, rows=training, most=5)

        assert set(found.labels[held_out]) == {"common", "rare"}
        assert len(folds) == 5
        for known, unseen in folds:
            assert not set(known) & set(unseen)
            assert set(found.labels[training][known]) == {"common", "rare", "single"}
            assert set(found.labels[training][unseen]) == {"common", "rare"}

    def test_of_every_class_are_in_a_sample(self, tmp_path: Path) -> None:
        labels = ["common"] * 990 + ["rare"] * 10
        found = problem(tmp_path / "p", {"a": list(range(1000)), "y": labels})
        everything = np.ones(1000, dtype=np.bool_)

        hashes = hash_rows(found, seed=0, by=[])
        rows = thin_out(found, hashes, among=everything, most=100)

        assert 95 <= len(rows) <= 110
        assert (found.labels[rows] == "rare").sum() == 5


class TestGroups:
    def test_stay_whole_and_are_not_a_feature(self, tmp_path: Path) -> None:
        groups = [f"g{i // 5}" for i in range(200)]
        columns: Columns = {"a": list(range(200)), "who": groups, "y": [0, 1] * 100}
        found = problem(tmp_path / "p", columns, group="who")
        hashes = hash_rows(found, seed=0, by=[])

        held_out = hold_out(found, hashes, share=0.3)
        training = np.flatnonzero(~held_out)

        assert list(found.table) == ["a"]
        assert 40 <= held_out.sum() <= 60
        assert not set(np.array(groups)[held_out]) & set(np.array(groups)[~held_out])
        for known, unseen in make_folds(found, hashes, rows=training, most=5):
            who = np.array(groups)[training]
            assert not set(who[known]) & set(who[unseen])

    def test_with_all_rows_of_a_class_stay_in_training(self, tmp_path: Path) -> None:
        groups = [f"g{i // 10}" for i in range(100)]
        columns: Columns = {
            "a": list(range(100)),
            "who": groups,
            "y": [i // 10 for i in range(100)],
        }
        found = problem(tmp_path / "p", columns, group="who")

        with pytest.raises(DataError, match="enough rows to evaluate"):
            held_out_of(found)


class TestTimes:
    @pytest.mark.parametrize("form", ["2026-01-{:02}", "{}", "2026-03-01T00:{:02}:00Z"])
    def test_hold_out_the_newest_rows_and_predict_each_fold_from_its_past(
        self, tmp_path: Path, form: str
    ) -> None:
        moments = [1 + (7 * i) % 28 for i in range(112)]
        columns: Columns = {
            "at": [form.format(m) for m in moments],
            "a": moments,
            "y": [m + 0.5 for m in moments],
        }
        found = problem(tmp_path / "p", columns, time="at")
        hashes = hash_rows(found, seed=0, by=[])

        held_out = hold_out(found, hashes, share=0.25)
        training = np.flatnonzero(~held_out)

        when = np.array(moments)
        assert list(found.table) == ["a"]
        assert when[held_out].min() > when[~held_out].max()
        assert held_out.sum() == 28
        for known, unseen in make_folds(found, hashes, rows=training, most=3):
            assert when[training][known].max() <= when[training][unseen].min()

    def test_may_be_as_far_away_as_a_calendar_goes(self, tmp_path: Path) -> None:
        days = ["0001-01-01", *(f"2026-01-{day:02}" for day in range(1, 29)), "9999-12-31"]
        columns: Columns = {"at": days, "a": list(range(30)), "y": [i + 0.5 for i in range(30)]}

        times = problem(tmp_path / "p", columns, time="at").times

        assert times is not None
        assert list(np.diff(times[1:-1])) == [86400.0] * 27
        assert (times[0], times[-1]) == (-62135596800.0, 253402214400.0)

    def test_must_be_times_and_every_class_must_appear_early(self, workshop: Workshop) -> None:
        workshop.put_rows("m", ["at", "a", "y"], [("soon", i, i % 2) for i in range(40)])
        workshop.put("m", '{"target": "y", "time": "at"}', name="dataset.json")
        with pytest.raises(DataError, match=r"'at' has 40 cells .* line 2: \"soon\""):
            workshop.train("m")

        workshop.put_rows("m", ["at", "a", "y"], [(i, i, int(i > 35)) for i in range(40)])
        with pytest.raises(DataError, match="Class 1 appears only in the newest rows"):
            workshop.train("m")
