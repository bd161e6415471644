"""Fit pipelines, predict with them, and cross-validate them."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from trainer.data.split import Fold
from trainer.modelling.metrics import row_losses
from trainer.types import Features, Floats, Indices, Metric, Outputs


def fit(pipeline: Pipeline, features: Features, labels: npt.NDArray[Any]) -> Pipeline:
    """Fit in place without warnings: the gate judges a model by its predictions.

    Raises:
        ValueError: the values are too extreme for this model family.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipeline.fit(features, labels)


def predict(pipeline: Pipeline, features: Features) -> Outputs:
    """Return a classifier's probabilities [N, classes] or a regressor's values [N]."""
    is_classifier = hasattr(pipeline, "predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = (pipeline.predict_proba if is_classifier else pipeline.predict)(features)
    outputs = np.asarray(outputs)
    # Some regressors return one column, which would be compared with every row.
    return outputs.ravel() if not is_classifier and outputs.size == len(outputs) else outputs


def cross_validate(
    pipeline: Pipeline,
    features: Features,
    labels: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    *,
    folds: list[Fold],
    metric: Metric,
    weights: Floats | None,
) -> Floats:
    """Return the out-of-fold loss of each row in a fold.

    Raises:
        ValueError: the values are too extreme for this model family, or a prediction is not a
            finite number.
    """
    losses = []
    for known, unseen in folds:
        fitted = fit(clone(pipeline), take(features, known), labels[known])
        outputs = predict(fitted, take(features, unseen))
        if weights is not None or metric in ("log_loss", "accuracy"):
            outputs = _align(outputs, np.unique(truth[known]), classes=int(truth.max()) + 1)
        losses.append(row_losses(metric, truth[unseen], outputs, weights))
    together = np.concatenate(losses)
    if not np.isfinite(together).all():
        raise ValueError("a prediction is not a finite number")
    return together


def take(features: Features, rows: Indices) -> Features:
    """Return the rows at some positions."""
    return features[rows] if isinstance(features, np.ndarray) else features.iloc[rows]


def _align(outputs: Outputs, known: npt.NDArray[Any], *, classes: int) -> Outputs:
    """Spread the probabilities of the `known` classes over all classes."""
    if len(known) == classes:
        return outputs
    aligned = np.zeros((len(outputs), classes))
    aligned[:, known] = outputs
    return aligned
