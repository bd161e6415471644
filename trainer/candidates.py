"""The models that are tried: their families, and the parameters to choose from."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from services.common.model_records import Signature
from trainer.kinds import Family, Features, Floats, Metric, Outputs
from trainer.scoring import row_losses
from trainer.split import Fold

Parameters = dict[str, float | int]

MAX_CATEGORIES = 50
MAX_NATIVE_CATEGORIES = 250  # histogram boosting has 255 bins
# Of a random forest's tree: what a client waits for, the file's size, and the time to fit it.
MAX_LEAVES = 512
MAX_SAMPLES = 10_000

BOOSTING: list[Parameters] = [
    {},
    {"learning_rate": 0.05, "max_iter": 200, "max_leaf_nodes": 15},
    {"max_leaf_nodes": 7},
]
# Leaves of one row would give probabilities of exactly 0, and one such mistake costs the most.
FORESTS: list[Parameters] = [{"min_samples_leaf": 3}, {"min_samples_leaf": 8}]


@dataclass(frozen=True)
class Candidate:
    """A family with parameters; those not named are the family's own."""

    family: Family
    parameters: Parameters

    @property
    def name(self) -> str:
        """As people read it."""
        told = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.family} ({told})" if told else self.family


@dataclass(frozen=True)
class Workbench:
    """What all candidates of one training have in common.

    Args:
        jobs: threads of the last fit, on all rows.
        balanced: whether every class is to count the same.
    """

    signature: Signature
    seed: int
    jobs: int
    balanced: bool


def variants(family: Family, *, is_classifier: bool) -> list[Candidate]:
    """The parameters to try, the family's own first."""
    match family:
        case "linear":
            strength = "C" if is_classifier else "alpha"
            tried: list[Parameters] = [{}, {strength: 0.1}, {strength: 10.0}]
        case "random_forest":
            tried = FORESTS
        case _:
            tried = BOOSTING
    return [Candidate(family, parameters) for parameters in tried]


def build(candidate: Candidate, bench: Workbench, features: Features) -> Pipeline:
    """An unfitted pipeline that takes null and unknown text in every column.

    Args:
        features: the rows to fit on, of which the most frequent text categories are taken.
    """
    texts = [i for i, column in enumerate(bench.signature.columns) if column.kind == "text"]
    numbers = [i for i, column in enumerate(bench.signature.columns) if column.kind != "text"]
    # `keep_empty_features`: a column without any value in training must not vanish.
    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if candidate.family == "linear":
        steps.append(StandardScaler(copy=False))
    model = _model(candidate, bench, rows=len(features), texts=len(texts))
    if isinstance(features, np.ndarray):
        return make_pipeline(*steps, model)

    names = [f"column_{i}" for i in texts]
    # First, as `_model` counts on it.
    prepare = [("text", _encoder(candidate.family, [features[name] for name in names]), names)]
    if numbers:
        prepare.append(("numbers", make_pipeline(*steps), [f"column_{i}" for i in numbers]))
    return make_pipeline(ColumnTransformer(prepare), model)


def fit(pipeline: Pipeline, features: Features, labels: npt.NDArray[Any]) -> Pipeline:
    """Fit in place, in silence: a model is judged by its answers, not by its warnings.

    Raises:
        ValueError: the values are too extreme for this kind of model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipeline.fit(features, labels)


def answer(pipeline: Pipeline, features: Features) -> Outputs:
    """Probabilities [N, classes] of a classifier, values [N] of a regressor."""
    is_classifier = hasattr(pipeline, "predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = (pipeline.predict_proba if is_classifier else pipeline.predict)(features)
    return np.asarray(outputs)


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
    """The losses of the rows in a fold, each by a model that was not fitted on it.

    Raises:
        ValueError: as `fit`; also if an answer is no finite number.
    """
    losses = []
    for known, unseen in folds:
        fitted = fit(clone(pipeline), take(features, known), labels[known])
        outputs = answer(fitted, take(features, unseen))
        if weights is not None or metric in ("log_loss", "accuracy"):
            outputs = _align(outputs, np.unique(truth[known]), classes=int(truth.max()) + 1)
        losses.append(row_losses(metric, truth[unseen], outputs, weights))
    together = np.concatenate(losses)
    if not np.isfinite(together).all():
        raise ValueError("an answer is no finite number")
    return together


def take(features: Features, rows: npt.NDArray[np.int64]) -> Features:
    """Some rows, by position."""
    return features[rows] if isinstance(features, np.ndarray) else features.iloc[rows]


def _align(outputs: Outputs, known: npt.NDArray[Any], *, classes: int) -> Outputs:
    """Probabilities of the classes `known` to a model, among all classes."""
    if len(known) == classes:
        return outputs
    aligned = np.zeros((len(outputs), classes))
    aligned[:, known] = outputs
    return aligned


def _model(candidate: Candidate, bench: Workbench, *, rows: int, texts: int) -> Any:
    is_classifier = bench.signature.classes is not None
    options: dict[str, Any] = dict(candidate.parameters)
    if is_classifier and bench.balanced:
        options["class_weight"] = "balanced"
    match candidate.family:
        case "linear":
            return (
                LogisticRegression(max_iter=1000, **options) if is_classifier else Ridge(**options)
            )
        case "random_forest":
            forest = RandomForestClassifier if is_classifier else RandomForestRegressor
            return forest(
                100,
                max_leaf_nodes=MAX_LEAVES,
                max_samples=min(1.0, MAX_SAMPLES / rows),
                n_jobs=bench.jobs,
                random_state=bench.seed,
                **options,
            )
        case family:
            if family == "categorical_boosting":
                options["categorical_features"] = list(range(texts))
            boosting = (
                HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
            )
            # Early stopping would hold out rows of its own, and fail where a class is rare.
            return boosting(early_stopping=False, random_state=bench.seed, **options)


def _encoder(family: Family, columns: list[Any]) -> OneHotEncoder | OrdinalEncoder:
    if family == "categorical_boosting":
        return OrdinalEncoder(
            categories=[_frequent(values, MAX_NATIVE_CATEGORIES) for values in columns],
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            dtype=np.float32,
        )
    return OneHotEncoder(
        # Named outright, as `max_categories` would make a group that ONNX does not know.
        categories=[_frequent(values, MAX_CATEGORIES) for values in columns],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )


def _frequent(values: Any, most: int) -> npt.NDArray[Any]:
    # Ties in alphabetical order, so that the order of the rows does not matter.
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return np.array(sorted(counts.index[:most]), dtype=object)
