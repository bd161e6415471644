"""Missing values and white space mean the same in training and in a request."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.records import Column, Manifest, Signature
from registry.value_rules import BLANKS, MISSING, ValueRules
from services.inference.api.v2 import tensors
from services.inference.models.inputs import Inputs
from tests.integration.trainer import cases
from tests.integration.trainer.conftest import Workshop
from trainer.data.cells import clean_texts
from trainer.data.config import DatasetConfig
from trainer.data.formats import open_part
from trainer.data.table import read_table
from trainer.evaluation.compatibility import list_changes


def signature(kind: Any = "text", rules: ValueRules | None = None, *, count: int = 1) -> Signature:
    columns = [Column(name=f"c{i}", kind=kind) for i in range(count)]
    return Signature(
        task="regression", target="y", columns=columns, classes=None, value_rules=rules
    )


def decode(sent: list[Any], rules: ValueRules | None, kind: Any = "text") -> list[Any]:
    """Returns a model's input for the values of one column, sent as v1."""
    arrays = Inputs(signature(kind, rules)).decode([[value] for value in sent])
    [array] = arrays.values()
    return [None if value != value else value for value in array.ravel().tolist()]


class TestTrainingAndServing:
    @pytest.mark.costly
    def test_clean_every_character_alike(self) -> None:
        characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
        texts = [f"{character}x{character}" for character in characters]

        cleaned = clean_texts(pa.array(texts, pa.large_string()), ValueRules())

        clean = ValueRules().clean
        assert cleaned.to_pylist() == [clean(text) or None for text in texts]
        assert all(character in BLANKS for character in characters if character.isspace())

    @given(st.lists(st.one_of(st.text(), st.sampled_from([*MISSING, " NA", "None", "na", " "]))))
    def test_clean_any_text_alike(self, texts: list[str]) -> None:
        for rules in (ValueRules(), ValueRules(missing=("-", "NA ")), ValueRules(trim=False)):
            cleaned = clean_texts(pa.array(texts, pa.large_string()), rules)

            assert cleaned.to_pylist() == [rules.clean(text) or None for text in texts]

    @pytest.mark.parametrize("missing", [list(MISSING), [], ["TA", "-"]])
    def test_read_a_cell_and_a_request_alike(self, tmp_path: Path, missing: list[str]) -> None:
        words = ["NA", " Gd", "Ex ", "TA", "-", "None", "n/a", "\u00a0Gd\u2009"]
        (tmp_path / "part").write_text(cases.write([[word, "1"] for word in words], ("a", "b")))
        pq.write_table(pa.table({"a": words, "b": [1] * len(words)}), tmp_path / "parquet")
        config = DatasetConfig(missing=missing)
        served = decode(words, config.value_rules)

        for name, path in (("p.csv", "part"), ("p.parquet", "parquet")):
            table = read_table([open_part(name, tmp_path / path)], config=config, precise=[])

            trained = table.frame["a"].astype(object).where(table.frame["a"].notna(), "")
            assert trained.tolist() == served

    def test_read_a_number_that_means_missing_alike(self, tmp_path: Path) -> None:
        (tmp_path / "part").write_text("a,b\n-999,1\n-999.0,1\n5,1\n")
        pq.write_table(pa.table({"a": [-999.0, -999.0, 5.0], "b": [1] * 3}), tmp_path / "parquet")
        config = DatasetConfig(missing=["-999"])

        for name, path in (("p.csv", "part"), ("p.parquet", "parquet")):
            table = read_table([open_part(name, tmp_path / path)], config=config, precise=[])

            assert np.isnan(table.frame["a"]).tolist() == [True, True, False]
        assert decode([-999, -999.0, 5], config.value_rules, "number") == [None, None, 5.0]

    def test_leave_booleans_alone(self) -> None:
        rules = ValueRules(missing=("0", "1"))

        assert decode([False, True], rules, "boolean") == [0.0, 1.0]


class TestRequests:
    def test_of_v2_follow_the_rules_too(self) -> None:
        rules = ValueRules(missing=("NA", "-999", "1e300"))
        texts = tensors.RawTensor("c0", "BYTES", [2, 1], [" NA", " x "], None)
        numbers = tensors.RawTensor("features", "FP32", [1, 2], [-999, 3], None)

        arrays, _ = tensors.decode([texts], Inputs(signature("text", rules)), max_rows=9)
        matrix, _ = tensors.decode(
            [numbers], Inputs(signature("number", rules, count=2)), max_rows=9
        )

        assert arrays["column_0"].ravel().tolist() == ["", "x"]
        assert np.isnan(matrix["features"]).tolist() == [[True, False]]

    def test_of_a_version_without_rules_are_unchanged(self) -> None:
        assert decode(["NA", " x ", None, ""], None) == ["NA", " x ", "", ""]

    @pytest.mark.costly
    def test_of_a_trained_version_treat_placeholders_as_null(self, workshop: Workshop) -> None:
        chance = random.Random(3)
        worth = {"Ex": 300, "Gd": 200, "TA": 100, "NA": 0}
        rows = [
            [word := chance.choice(list(worth)), str(worth[word] + chance.uniform(0, 9))]
            for _ in range(120)
        ]
        workshop.put("m", cases.write(rows, ("basement", "price")))
        workshop.put("m", '{"estimators": ["linear"]}', name="dataset.json")

        outcome = workshop.train("m", target="price")

        found = workshop.manifest(outcome).signature
        assert found.value_rules is not None
        assert "NA" in found.value_rules.missing
        inputs = Inputs(found)
        as_word, as_null = inputs.decode([["NA"], [" NA "]]), inputs.decode([[None], [None]])
        assert as_word["column_0"].tolist() == as_null["column_0"].tolist()
        assert 'with "NA" count as missing' in " ".join(outcome.notes)


class TestManifests:
    @pytest.mark.costly
    def test_of_older_versions_load_without_rules(self, workshop: Workshop) -> None:
        workshop.put("m", cases.write(cases.sales()))
        workshop.put("m", '{"estimators": ["linear"]}', name="dataset.json")
        document = workshop.manifest(workshop.train("m", target="bought")).model_dump(mode="json")
        del document["signature"]["value_rules"]

        older = Manifest.model_validate(document)

        assert older.signature.value_rules is None
        assert Inputs(older.signature).value_rules.clean(" NA ") == " NA "

    def test_name_a_change_of_missing_values(self) -> None:
        before, now = signature(rules=ValueRules(missing=("NA", "x"))), signature()

        changed = signature(rules=ValueRules(missing=("NA", "-")))

        assert list_changes(before, changed) == [
            "'-' now means missing",
            "'x' no longer means missing",
        ]
        assert list_changes(before, now) == list_changes(now, before) == []
