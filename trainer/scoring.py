"""How good answers are: a loss for every row, so that two models can be compared row by row."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.model_records import Signature
from trainer.errors import DataError
from trainer.kinds import Floats, Metric, Outputs

SUITABLE: dict[str, tuple[Metric, ...]] = {
    "classification": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae"),
}
SMALLEST = 1e-7  # of a probability: one confident mistake must not decide alone


def choose_metric(signature: Signature, stated: Metric | None) -> Metric:
    """The metric stated, if it suits the task; else log loss, or root mean squared error.

    Log loss, as accuracy sees no difference on lopsided classes, and clients buy probabilities.

    Raises:
        DataError: the metric is for the other task.
    """
    suitable = SUITABLE[signature.task]
    if stated is None:
        return suitable[0]
    if stated not in suitable:
        raise DataError(f"The metric {stated} does not suit {signature.task}.")
    return stated


def row_losses(metric: Metric, truth: npt.NDArray[Any], outputs: Outputs) -> Floats:
    """What each row costs, [N]; 0 is perfect. The mean is what a metric compares."""
    match metric:
        case "log_loss":
            given = outputs[np.arange(len(truth)), truth].astype(np.float64)
            losses = -np.log(np.clip(given, SMALLEST, 1.0))
        case "accuracy":
            losses = (outputs.argmax(axis=1) != truth).astype(np.float64)
        case "rmse":
            losses = (outputs.astype(np.float64) - truth) ** 2
        case "mae":
            losses = np.abs(outputs.astype(np.float64) - truth)
    return np.asarray(losses)


def score(metric: Metric, losses: Floats) -> float:
    """The metric as people know it, of one model's row losses."""
    mean = float(losses.mean())
    match metric:
        case "accuracy":
            return 1.0 - mean
        case "rmse":
            return math.sqrt(mean)
        case _:
            return mean


def scores(signature: Signature, truth: npt.NDArray[Any], outputs: Outputs) -> dict[str, float]:
    """Every metric that suits the task."""
    return {
        metric: score(metric, row_losses(metric, truth, outputs))
        for metric in SUITABLE[signature.task]
    }


def know_nothing(
    signature: Signature, metric: Metric, training_truth: npt.NDArray[Any], rows: int
) -> Outputs:
    """What the best answer without any feature would be, for `rows` rows.

    The shares of the classes, or the mean (for absolute errors the median) of the target.
    """
    if signature.classes is None:
        middle = np.median if metric == "mae" else np.mean
        return np.full(rows, float(middle(training_truth)))
    counts = np.bincount(training_truth, minlength=len(signature.classes))
    return np.tile(counts / counts.sum(), (rows, 1))
