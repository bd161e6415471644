"""How good answers are: a loss for every row, so that two models can be compared row by row."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score

from services.common.model_records import Signature
from trainer.errors import DataError
from trainer.kinds import Floats, Metric, Outputs

SUITABLE: dict[str, tuple[Metric, ...]] = {
    "classification": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae"),
}
SMALLEST = 1e-4  # of a probability: one confident mistake must not decide alone


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


def balance(truth: npt.NDArray[Any], *, classes: int) -> Floats:
    """[classes] weights by which every class of `truth` counts the same; 1 on average."""
    counts = np.bincount(truth, minlength=classes)
    return np.asarray(len(truth) / (classes * np.maximum(counts, 1)))


def row_losses(
    metric: Metric, truth: npt.NDArray[Any], outputs: Outputs, weights: Floats | None = None
) -> Floats:
    """What each row costs, [N]; 0 is perfect. The mean is what a metric compares.

    Args:
        weights: [classes] what a row of each class counts; None for one each.
    """
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
    return np.asarray(losses if weights is None else losses * weights[truth])


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
    """Every metric that suits the task, and one more that is easily read."""
    measured: dict[str, float] = {
        metric: score(metric, row_losses(metric, truth, outputs))
        for metric in SUITABLE[signature.task]
    }
    if signature.classes is None:
        return measured | {"r2": float(r2_score(truth, outputs)) if len(truth) > 1 else 0.0}
    # Of the classes that are there; sklearn warns of answers that name others.
    hits = outputs.argmax(axis=1) == truth
    recalls = [hits[truth == position].mean() for position in np.unique(truth)]
    return measured | {"balanced_accuracy": float(np.mean(recalls))}


def know_nothing(
    signature: Signature,
    metric: Metric,
    training_truth: npt.NDArray[Any],
    rows: int,
    weights: Floats | None = None,
) -> Outputs:
    """What the best answer without any feature would be, for `rows` rows.

    The shares of the classes, weighted, or the mean (for absolute errors the median) of the target.
    """
    if signature.classes is None:
        middle = np.median if metric == "mae" else np.mean
        return np.full(rows, float(middle(training_truth)))
    counts = np.bincount(training_truth, minlength=len(signature.classes))
    shares = counts if weights is None else counts * weights
    return np.tile(shares / shares.sum(), (rows, 1))
