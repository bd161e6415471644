"""The candidate models: their families and hyperparameters."""

from dataclasses import dataclass
from typing import Any

from sklearn.base import clone
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from registry.records import Signature
from registry.runtimes.named_table import NamedTable
from trainer.modelling.boosters import build_lightgbm, build_xgboost
from trainer.modelling.own_pipeline import OwnPipeline
from trainer.modelling.preparing import prepare
from trainer.types import Family, Features, Source

Parameters = dict[str, Any]

# Per tree of a random forest; they bound latency, file size and training time.
MAX_LEAVES = 512
MAX_SAMPLES = 10_000

BOOSTING: list[Parameters] = [
    {},
    {"learning_rate": 0.05, "max_iter": 200, "max_leaf_nodes": 15},
    {"max_leaf_nodes": 7},
]
LIGHTGBM: list[Parameters] = [
    {},
    {"learning_rate": 0.05, "n_estimators": 200, "num_leaves": 15},
    {"num_leaves": 7},
]
XGBOOST: list[Parameters] = [
    {"learning_rate": 0.1},
    {"learning_rate": 0.05, "n_estimators": 200, "max_depth": 4},
    {"learning_rate": 0.1, "max_depth": 3},
]
# Single-row leaves give probabilities of exactly 0, which log loss punishes most.
FORESTS: list[Parameters] = [{"min_samples_leaf": 3}, {"min_samples_leaf": 8}]


@dataclass(frozen=True)
class Candidate:
    """A model family and its hyperparameters; those not listed keep their defaults."""

    family: Source
    parameters: Parameters

    @property
    def expands(self) -> bool:
        """Return whether it takes expanded inputs (see `registry.features`)."""
        return self.family not in ("pipeline", "imported")

    @property
    def name(self) -> str:
        """Return a readable name, such as `linear (C=0.1)`."""
        parameters = ", ".join(f"{name}={_show(value)}" for name, value in self.parameters.items())
        return f"{self.family} ({parameters})" if parameters else self.family


@dataclass(frozen=True)
class TrainingContext:
    """The inputs that all candidates of a training run share.

    Args:
        jobs: threads for the final fit on all rows.
        balanced: whether all classes have the same weight.
        own: the owner's training code, if there is some.
    """

    signature: Signature
    seed: int
    jobs: int
    balanced: bool
    own: OwnPipeline | None = None


def variants(family: Family, *, is_classifier: bool) -> list[Candidate]:
    """Return the candidates of a family, the one with default parameters first."""
    match family:
        case "linear":
            strength = "C" if is_classifier else "alpha"
            parameter_sets: list[Parameters] = [{}, {strength: 0.1}, {strength: 10.0}]
        case "random_forest":
            parameter_sets = FORESTS
        case "lightgbm":
            parameter_sets = LIGHTGBM
        case "xgboost":
            parameter_sets = XGBOOST
        case _:
            parameter_sets = BOOSTING
    return [Candidate(family, parameters) for parameters in parameter_sets]


def own_candidates(own: OwnPipeline) -> list[Candidate]:
    """Return the candidates of the owner's training code, one per set of parameters."""
    return [Candidate("pipeline", parameters) for parameters in own.variants]


def named_table(signature: Signature) -> NamedTable:
    """Return the unfitted step that gives a model of the owner's its table."""
    columns = signature.columns
    return NamedTable([column.name for column in columns], [column.kind for column in columns])


def build(candidate: Candidate, context: TrainingContext, features: Features) -> Pipeline:
    """Build an unfitted pipeline that accepts null and unknown text in every column.

    Args:
        features: the rows to fit on; their most frequent categories and words are encoded.
    """
    if candidate.family == "pipeline" and context.own is not None:
        estimator = clone(context.own.estimator).set_params(**candidate.parameters)
        return make_pipeline(named_table(context.signature), estimator)
    steps = prepare(candidate.family, context.signature, features, seed=context.seed)
    return make_pipeline(*steps, _model(candidate, context, rows=len(features)))


def _model(candidate: Candidate, context: TrainingContext, *, rows: int) -> Any:
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
        case "lightgbm":
            return build_lightgbm(
                options, is_classifier=is_classifier, seed=context.seed, jobs=context.jobs
            )
        case "xgboost":
            return build_xgboost(options, is_classifier=is_classifier, seed=context.seed)
        case family:
            if family == "categorical_boosting":
                texts = sum(column.kind == "text" for column in context.signature.columns)
                options["categorical_features"] = list(range(texts))
            boosting = (
                HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
            )
            # Early stopping would hold out more rows, and it fails when a class is rare.
            return boosting(early_stopping=False, random_state=context.seed, **options)


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
