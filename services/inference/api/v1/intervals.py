"""Bounds of predictions that hold with a requested probability, from a version's calibration."""

from typing import Any

from registry.calibration import Calibration, LevelTooHigh
from registry.runtimes.runtime import InferenceResponse
from services.common.errors import BodyInvalid
from services.inference.models.table import LoadedModel

_WHERE = ["parameters", "intervals"]


def read_level(value: Any, model: LoadedModel) -> float:
    """Return a requested level that the version can vouch for.

    Raises:
        BodyInvalid: it is not a number between 0 and 1, is too high for the number of rows that the
            version was calibrated on, or the version was not calibrated.
    """
    if type(value) is not float or not 0 < value < 1:
        raise _invalid("Must be a number between 0 and 1, such as 0.9.")
    calibration = model.manifest.calibration
    if calibration is None:
        raise _invalid("This version has no calibration; it was trained before intervals existed.")
    try:
        calibration.threshold(value)
    except LevelTooHigh:
        rows = calibration.rows
        highest = f"{int(calibration.max_level * 10_000) / 10_000:g}"
        raise _invalid(
            f"Must be at most {highest}: this version was calibrated on {rows:,} rows."
        ) from None
    return value


def can_vouch_for(model: LoadedModel, level: float) -> bool:
    """Return whether a version can answer a request at this level."""
    calibration = model.manifest.calibration
    return calibration is not None and level <= calibration.max_level


def bounds(model: LoadedModel, response: InferenceResponse, level: float) -> dict[str, Any]:
    """Return `intervals` or `label_sets`, one per row.

    Args:
        response: with the probabilities of a classifier.
    """
    threshold = _calibration(model).threshold(level)
    classes, probabilities = model.manifest.signature.classes, response.probabilities
    if classes is None or probabilities is None:
        return {
            "intervals": [[each - threshold, each + threshold] for each in response.predictions]
        }
    return {
        "label_sets": [
            [
                label
                for label, given in zip(classes, row, strict=True)
                if 1.0 - given <= threshold or label == predicted
            ]
            for predicted, row in zip(response.predictions, probabilities, strict=True)
        ]
    }


def _calibration(model: LoadedModel) -> Calibration:
    if model.manifest.calibration is None:
        raise ValueError("the version has no calibration")
    return model.manifest.calibration


def _invalid(message: str) -> BodyInvalid:
    return BodyInvalid([{"loc": _WHERE, "msg": message}])
