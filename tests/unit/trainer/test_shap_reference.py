"""Explanations of linear and tree models are equal to those of the package `shap`."""

from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.shap_reference import FILE, KINDS

with np.load(FILE) as file:
    REFERENCE = dict(file)
NAMES = sorted({name.split("/")[0] for name in REFERENCE} - {"version"})


def entries(name: str) -> dict[str, Any]:
    fields = [each for each in REFERENCE if each.startswith(f"{name}/")]
    return {each.split("/")[1]: REFERENCE[each] for each in fields}


def test_there_are_linear_and_tree_models() -> None:
    assert {str(REFERENCE[f"{name}/kind"]) for name in NAMES} == set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_contributions_are_those_of_shap(name: str) -> None:
    fields = entries(name)
    kind, rows = fields.pop("kind"), fields.pop("rows")
    expected, wanted = fields.pop("expected"), fields.pop("contributions")
    kernel = KINDS[str(kind)](**fields)

    for output in range(wanted.shape[2]):
        # Of two classes, shap explains the second one where both add up to 1 or to 0.
        asked = output if wanted.shape[2] > 1 else -1
        base, contributions = kernel.shap(rows, np.full(len(rows), asked))

        assert contributions == pytest.approx(wanted[..., output], abs=1e-6, rel=1e-6)
        assert base == pytest.approx(expected[output], abs=1e-6, rel=1e-6)
