"""Compare a model's predictions with those recorded at training."""

import math
from collections.abc import Sequence
from typing import Any

from registry.records import WarmUp

PROBABILITY_TOLERANCE = 1e-5
NUMBER_TOLERANCE = 1e-4
"""Largest difference from the value recorded at training (relative for numbers)."""


def is_as_recorded(
    recorded: WarmUp, predictions: Sequence[Any], probabilities: Sequence[Sequence[Any]] | None
) -> bool:
    """Return whether predictions for the recorded rows match within the tolerances."""
    actual, expected = probabilities or [], recorded.probabilities or []
    return (
        _is_same(predictions, recorded.predictions, NUMBER_TOLERANCE)
        and len(actual) == len(expected)
        and all(
            _is_same(actual_row, expected_row, PROBABILITY_TOLERANCE)
            for actual_row, expected_row in zip(actual, expected, strict=True)
        )
    )


def _is_same(actual: Sequence[Any], expected: Sequence[Any], tolerance: float) -> bool:
    """Return whether labels are equal and numbers are close (relative above 1)."""
    return len(actual) == len(expected) and all(
        _is_close(a, b, tolerance) for a, b in zip(actual, expected, strict=True)
    )


def _is_close(a: Any, b: Any, tolerance: float) -> bool:
    numbers = (int, float)
    if (isinstance(a, float) or isinstance(b, float)) and (
        isinstance(a, numbers) and isinstance(b, numbers)
    ):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return bool(a == b)
