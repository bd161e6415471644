"""Prediction intervals and label sets hold the truth as often as they say."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from registry.calibration import Calibration, LevelTooHigh, ranks_to_keep
from trainer.evaluation.calibration import calibrate

LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99]
FRESH = 50_000


def values(rows: int, seed: int) -> tuple[Any, Any]:
    """Return true values with skewed errors, and float32 predictions of them."""
    chance = np.random.default_rng(seed)
    outputs = chance.normal(100, 20, rows)
    return outputs + chance.exponential(3, rows), outputs.astype(np.float32)


def labels(rows: int, seed: int) -> tuple[Any, Any]:
    """Return true classes of four, and the probabilities of a model that is too confident."""
    chance = np.random.default_rng(seed)
    scores = chance.normal(0, 1, (rows, 4))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = (shares.cumsum(axis=1) < chance.random((rows, 1))).sum(axis=1)
    sharpened = shares**3
    return truth, (sharpened / sharpened.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", [2_000, 40_000], ids=["every rank kept", "ranks thinned out"])
@pytest.mark.parametrize("sample", [values, labels])
def test_coverage_of_fresh_rows_is_within_two_points(level: float, rows: int, sample: Any) -> None:
    calibration = calibrate(*sample(rows, seed=1))
    truth, outputs = sample(FRESH, seed=2)

    threshold = calibration.threshold(level)

    if outputs.ndim == 1:
        covered = np.abs(truth - outputs.astype(np.float64)) <= threshold
    else:
        given = 1 - outputs[np.arange(FRESH), truth].astype(np.float64)
        covered = (given <= threshold) | (outputs.argmax(axis=1) == truth)
    assert covered.mean() == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize("rows", [1, 2, 999, 1_000, 1_001, 5_000, 1_000_000])
def test_the_ranks_are_bounded_and_end_with_the_last_row(rows: int) -> None:
    ranks = ranks_to_keep(rows)

    assert len(ranks) <= 1_100
    assert ranks == sorted(set(ranks))
    assert (ranks[0] >= 1, ranks[-1]) == (True, rows)


def test_a_rank_that_was_not_kept_is_rounded_up() -> None:
    rows = 100_000
    calibration = calibrate(np.arange(1.0, rows + 1), np.zeros(rows, np.float32))

    for level in (0.1, 0.5, 0.9, 0.98765, 0.99999):
        exact = math.ceil((rows + 1) * level)
        assert exact <= calibration.threshold(level) <= exact + rows / 1_000


def test_a_level_beyond_what_the_rows_can_vouch_for_is_refused() -> None:
    calibration = calibrate(np.arange(9.0), np.zeros(9, np.float32))

    assert calibration.max_level == 0.9
    assert calibration.threshold(0.9) == 8
    with pytest.raises(LevelTooHigh):
        calibration.threshold(0.901)


def test_a_right_prediction_scores_zero_however_unsure() -> None:
    outputs = np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]], np.float32)

    calibration = calibrate(np.array([0, 2]), outputs)

    assert calibration.scores == pytest.approx([0, 0.7])


@pytest.mark.parametrize(
    "damage", [{"scores": [1.0]}, {"ranks": [1, 2, 4]}, {"rows": 0}, {"ranks": []}]
)
def test_damaged_records_are_invalid(damage: dict[str, Any]) -> None:
    record = {"rows": 3, "ranks": [1, 2, 3], "scores": [0.1, 0.2, 0.3]}
    Calibration.model_validate(record)

    with pytest.raises(ValidationError):
        Calibration.model_validate(record | damage)
