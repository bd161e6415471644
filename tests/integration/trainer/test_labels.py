"""Class labels are part of a version's signature: a change or a near-duplicate is never silent."""

from pathlib import Path
from typing import Any

import pytest

from registry.records import Signature, VersionRefused
from registry.releases import check_fits_beside
from tests.integration.trainer import cases, samples
from tests.integration.trainer.conftest import Workshop
from trainer.data.config import DatasetConfig, parse_dataset_config
from trainer.data.formats import open_part
from trainer.data.problem import Problem, define_problem
from trainer.data.table import read_table
from trainer.errors import DataError
from trainer.evaluation.compatibility import list_changes


def problem(folder: Path, labels: list[str], **settings: Any) -> Problem:
    rows = [[str(i), label] for i, label in enumerate(labels)]
    (folder / "part").write_text(cases.write(rows, ("a", "y")))
    config = DatasetConfig.model_validate(settings)
    part = open_part("part.csv", folder / "part")
    table = read_table([part], config=config, precise=["y"], target="y")
    return define_problem(table, target="y", task=None, config=config, known_kinds={})


class TestSimilarLabels:
    @pytest.mark.parametrize(
        "odd", ["Yes", "YES", "yes ", "y es", "yes\u00a0", "yes\u200b", "ｙes"]
    )
    def test_are_refused_with_counts(self, tmp_path: Path, odd: str) -> None:
        with pytest.raises(DataError, match=r"only in case or white space: .yes. .37 rows") as why:
            problem(tmp_path, ["yes"] * 37 + [odd] * 3 + ["no"] * 40)

        assert "(3 rows)" in str(why.value)
        assert '"no"' not in str(why.value)

    def test_are_two_classes_if_both_are_configured(self, tmp_path: Path) -> None:
        labels = ["a"] * 20 + ["A"] * 20

        found = problem(tmp_path, labels, classes=["a", "A"])

        assert found.signature.classes == ["A", "a"]

    def test_that_are_not_configured_are_refused_with_the_place(self, tmp_path: Path) -> None:
        labels = ["a"] * 20 + ["A"] * 19 + ["aa"]

        with pytest.raises(DataError, match=r'labels .*1 row.* part\.csv line 41: "aa"'):
            problem(tmp_path, labels, classes=["a", "A"])

    def test_cannot_be_stated_if_only_blanks_at_their_ends_differ(self) -> None:
        with pytest.raises(DataError, match=r"^dataset.json: .* differ only in white space"):
            parse_dataset_config(b'{"classes": ["yes", "yes ", "no"]}')

    def test_with_the_same_blanks_in_every_row_are_trimmed(self, tmp_path: Path) -> None:
        found = problem(tmp_path, [" yes "] * 20 + ["no"] * 20)

        assert found.signature.classes == ["no", "yes"]
        assert set(found.labels.tolist()) == {"no", "yes"}


def test_a_target_of_numbers_and_many_words_is_refused_with_the_place(tmp_path: Path) -> None:
    labels = ["oops" if i % 7 == 3 else str(i * 1.5) for i in range(80)]

    with pytest.raises(DataError, match=r'text with 70 distinct .* part\.csv line 5: "oops"'):
        problem(tmp_path, labels)


class TestChanges:
    def test_of_classes_are_named(self) -> None:
        before = Signature(task="classification", target="y", columns=[], classes=["no", "yes"])

        def changes(**other: Any) -> list[str]:
            return list_changes(before, before.model_copy(update=other))

        assert changes(classes=["Y", "no"]) == ["class 'Y' is new", "class 'yes' is gone"]
        assert changes(classes=["maybe", "no", "yes"]) == ["class 'maybe' is new"]
        assert changes(classes=[0, 1]) == ["the target was text and is number"]
        assert changes() == []

    @pytest.mark.costly
    def test_of_classes_need_a_flag_and_are_noted(self, workshop: Workshop) -> None:
        workshop.put_rows("m", samples.HEADER, samples.rows(samples.text))
        workshop.put("m", '{"estimators": ["linear"]}', name="dataset.json")
        first = workshop.train("m", target="y", release=True)
        renamed = [(*row[:-1], row[-1].upper()) for row in samples.rows(samples.text)]
        workshop.put_rows("m", samples.HEADER, renamed)

        with pytest.raises(
            DataError, match="class 'BIG' is new; class 'SMALL' is new; class 'big'"
        ):
            workshop.train("m", release=True)
        second = workshop.train("m", allow_signature_change=True)

        assert "class 'BIG' is new" in " ".join(second.notes)
        live, other = workshop.manifest(first), workshop.manifest(second)
        with pytest.raises(VersionRefused, match="different classes") as refusal:
            check_fits_beside(other.model_copy(update={"gate": "passed"}), live)
        assert refusal.value.reason == "classes"

    @pytest.mark.costly
    def test_from_numbers_to_booleans_are_refused_for_a_canary(self, workshop: Workshop) -> None:
        workshop.put_rows("m", samples.HEADER, samples.rows(samples.boolean))
        workshop.put("m", '{"estimators": ["linear"]}', name="dataset.json")
        live = workshop.manifest(workshop.train("m", target="y"))
        signature = live.signature.model_copy(update={"classes": [0, 1]})

        with pytest.raises(VersionRefused, match="different classes"):
            check_fits_beside(live.model_copy(update={"signature": signature}), live)
