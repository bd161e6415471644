"""Score predictions by a loss per row, so that two models can be compared row by row."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score

from registry.records import Signature
from trainer.errors import DataError
from trainer.types import Floats, Metric, Outputs

SUITABLE: dict[str, tuple[Metric, ...]] = {
    "classification": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae"),
}
MIN_PROBABILITY = 1e-4  # so that one confident mistake cannot decide alone


def choose_metric(signature: Signature, configured: Metric | None) -> Metric:
    """Return the configured metric; the default is log loss or root mean squared error.

    Log loss, because accuracy is blind on imbalanced classes and clients use the probabilities.

    Raises:
        DataError: the metric does not suit the task.
    """
    suitable = SUITABLE[signature.task]
    if configured is None:
        return suitable[0]
    if configured not in suitable:
        raise DataError(
            f"dataset.json: metric {configured!r} does not suit {signature.task}; use "
            f"{' or '.join(map(repr, suitable))}."
        )
    return configured


def balance(truth: npt.NDArray[Any], *, classes: int) -> Floats:
    """Return [classes] weights that balance the classes of `truth`; the mean over rows is 1."""
    counts = np.bincount(truth, minlength=classes)
    return np.asarray(len(truth) / (classes * np.maximum(counts, 1)))


def row_losses(
    metric: Metric, truth: npt.NDArray[Any], outputs: Outputs, weights: Floats | None = None
) -> Floats:
    """Return the loss of each row, [N]; 0 is perfect.

    Args:
        weights: [classes] weight of a row of each class; None for equal weights.
    """
    match metric:
        case "log_loss":
            given = outputs[np.arange(len(truth)), truth].astype(np.float64)
            losses = -np.log(np.clip(given, MIN_PROBABILITY, 1.0))
        case "accuracy":
            losses = (outputs.argmax(axis=1) != truth).astype(np.float64)
        case "rmse":
            losses = (outputs.astype(np.float64) - truth) ** 2
        case "mae":
            losses = np.abs(outputs.astype(np.float64) - truth)
    return np.asarray(losses if weights is None else losses * weights[truth])


def score(metric: Metric, losses: Floats) -> float:
    """Return a metric's usual value from a model's row losses."""
    mean = float(losses.mean())
    match metric:
        case "accuracy":
            return 1.0 - mean
        case "rmse":
            return math.sqrt(mean)
        case _:
            return mean


def scores(signature: Signature, truth: npt.NDArray[Any], outputs: Outputs) -> dict[str, float]:
    """Return every metric that suits the task, plus R² or balanced accuracy."""
    measured: dict[str, float] = {
        metric: score(metric, row_losses(metric, truth, outputs))
        for metric in SUITABLE[signature.task]
    }
    if signature.classes is None:
        return measured | {"r2": float(r2_score(truth, outputs)) if len(truth) > 1 else 0.0}
    # By hand: scikit-learn warns about predicted classes that are absent from the truth.
    hits = outputs.argmax(axis=1) == truth
    recalls = [hits[truth == position].mean() for position in np.unique(truth)]
    return measured | {"balanced_accuracy": float(np.mean(recalls))}


def predict_baseline(
    signature: Signature,
    metric: Metric,
    training_truth: npt.NDArray[Any],
    rows: int,
    weights: Floats | None = None,
) -> Outputs:
    """Return the best constant prediction, without any feature, for `rows` rows.

    It is the (weighted) share of each class, or the mean of the target (the median for `mae`).
    """
    if signature.classes is None:
        middle = np.median if metric == "mae" else np.mean
        return np.full(rows, float(middle(training_truth)))
    counts = np.bincount(training_truth, minlength=len(signature.classes))
    shares = counts if weights is None else counts * weights
    return np.tile(shares / shares.sum(), (rows, 1))
