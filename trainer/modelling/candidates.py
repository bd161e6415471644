"""The candidate models: their families and hyperparameters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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

from registry.features import column_input
from registry.records import Signature
from trainer.types import Family, Features

Parameters = dict[str, float | int]

MAX_CATEGORIES = 50
MAX_NATIVE_CATEGORIES = 250  # histogram boosting has 255 bins
# Per tree of a random forest; they bound latency, file size and training time.
MAX_LEAVES = 512
MAX_SAMPLES = 10_000

BOOSTING: list[Parameters] = [
    {},
    {"learning_rate": 0.05, "max_iter": 200, "max_leaf_nodes": 15},
    {"max_leaf_nodes": 7},
]
# Single-row leaves give probabilities of exactly 0, which log loss punishes most.
FORESTS: list[Parameters] = [{"min_samples_leaf": 3}, {"min_samples_leaf": 8}]


@dataclass(frozen=True)
class Candidate:
    """A model family and its hyperparameters; those not listed keep their defaults."""

    family: Family
    parameters: Parameters

    @property
    def name(self) -> str:
        """Return a readable name, such as `linear (C=0.1)`."""
        parameters = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.family} ({parameters})" if parameters else self.family


@dataclass(frozen=True)
class TrainingContext:
    """The inputs that all candidates of a training run share.

    Args:
        jobs: threads for the final fit on all rows.
        balanced: whether all classes have the same weight.
    """

    signature: Signature
    seed: int
    jobs: int
    balanced: bool


def variants(family: Family, *, is_classifier: bool) -> list[Candidate]:
    """Return the candidates of a family, the one with default parameters first."""
    match family:
        case "linear":
            strength = "C" if is_classifier else "alpha"
            parameter_sets: list[Parameters] = [{}, {strength: 0.1}, {strength: 10.0}]
        case "random_forest":
            parameter_sets = FORESTS
        case _:
            parameter_sets = BOOSTING
    return [Candidate(family, parameters) for parameters in parameter_sets]


def build(candidate: Candidate, context: TrainingContext, features: Features) -> Pipeline:
    """Build an unfitted pipeline that accepts null and unknown text in every column.

    Args:
        features: the rows to fit on; their most frequent text categories are encoded.
    """
    texts = [i for i, column in enumerate(context.signature.columns) if column.kind == "text"]
    numbers = [i for i, column in enumerate(context.signature.columns) if column.kind != "text"]
    # Keep columns that are empty in training, so that the feature count matches the signature.
    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if candidate.family == "linear":
        steps.append(StandardScaler(copy=False))
    model = _model(candidate, context, rows=len(features), texts=len(texts))
    if isinstance(features, np.ndarray):
        return make_pipeline(*steps, model)

    names = [column_input(i) for i in texts]
    # Text columns come first: `_model` marks them as categorical by position.
    prepare = [("text", _encoder(candidate.family, [features[name] for name in names]), names)]
    if numbers:
        prepare.append(("numbers", make_pipeline(*steps), [column_input(i) for i in numbers]))
    return make_pipeline(ColumnTransformer(prepare), model)


def _model(candidate: Candidate, context: TrainingContext, *, rows: int, texts: int) -> Any:
    is_classifier = context.signature.classes is not None
    options: dict[str, Any] = dict(candidate.parameters)
    if is_classifier and context.balanced:
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
                n_jobs=context.jobs,
                random_state=context.seed,
                **options,
            )
        case family:
            if family == "categorical_boosting":
                options["categorical_features"] = list(range(texts))
            boosting = (
                HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
            )
            # Early stopping would hold out more rows, and it fails when a class is rare.
            return boosting(early_stopping=False, random_state=context.seed, **options)


def _encoder(family: Family, columns: list[Any]) -> OneHotEncoder | OrdinalEncoder:
    if family == "categorical_boosting":
        return OrdinalEncoder(
            categories=[_frequent(values, MAX_NATIVE_CATEGORIES) for values in columns],
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            dtype=np.float32,
        )
    return OneHotEncoder(
        # An explicit list: `max_categories` adds a group that skl2onnx does not support.
        categories=[_frequent(values, MAX_CATEGORIES) for values in columns],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )


def _frequent(values: Any, most: int) -> npt.NDArray[Any]:
    # Break ties alphabetically, so that the result does not depend on row order.
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return np.array(sorted(counts.index[:most]), dtype=object)
