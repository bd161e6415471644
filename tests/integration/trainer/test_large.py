"""Training on fifty thousand rows of mixed columns, with 10 % of the cells missing."""

from typing import Any

import numpy as np
import pytest

from tests.integration.trainer.conftest import Workshop

ROWS = 50_000


@pytest.mark.costly
@pytest.mark.parametrize("target", ["classes", "value"])
def test_many_rows_of_mixed_columns_are_learned(workshop: Workshop, target: str) -> None:
    chance = np.random.default_rng(0)
    numbers = chance.normal(size=(ROWS, 3)).round(3)
    town = chance.integers(0, 60, size=ROWS)
    sold = chance.random(ROWS) < 0.5
    value = 10 * numbers[:, 0] + 5 * sold + (town % 7)
    columns: list[list[Any]] = [
        *numbers.T.astype(str).tolist(),
        [f"town {i}" for i in town],
        np.char.lower(sold.astype(str)).tolist(),
    ]
    for column in columns:
        for i in np.flatnonzero(chance.random(ROWS) < 0.1):
            column[i] = ""
    learnt = np.digitize(value, [-2, 8]) if target == "classes" else value.round(3)
    rows = list(zip(*columns, learnt.tolist(), strict=True))
    workshop.put_rows("m", ["a", "b", "c", "town", "sold", "y"], rows)
    workshop.put("m", '{"target": "y", "estimators": ["linear"]}', name="dataset.json")

    outcome = workshop.train("m")

    found = outcome.metrics["candidate"]
    assert (outcome.gate, outcome.serving) == ("passed", "onnx")
    assert outcome.metrics["fitted_rows"] > 20_000
    assert found["accuracy"] > 0.75 if target == "classes" else found["r2"] > 0.75
