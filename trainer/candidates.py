"""The models that are tried, and how well each does in cross-validation."""

import warnings
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
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from services.common.model_records import Signature
from trainer.kinds import Features, Floats, Metric, Outputs
from trainer.scoring import row_losses

NAMES = ("linear", "random_forest", "boosting")
MAX_CATEGORIES = 50
# Of a random forest's tree: what a client waits for, the file's size, and the time to fit it.
MAX_LEAVES = 512
MAX_SAMPLES = 10_000


def build(name: str, signature: Signature, features: Features, *, seed: int, jobs: int) -> Pipeline:
    """An unfitted pipeline that takes null and unknown text in every column.

    Args:
        features: the training rows, of which the most frequent text categories are taken.
        jobs: threads of the random forest while it is fitted.
    """
    texts = [i for i, column in enumerate(signature.columns) if column.kind == "text"]
    numbers = [i for i, column in enumerate(signature.columns) if column.kind != "text"]
    # `keep_empty_features`: a column without any value in training must not vanish.
    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if name == "linear":
        steps.append(StandardScaler())
    model = _model(
        name,
        is_classifier=signature.classes is not None,
        rows=len(features),
        seed=seed,
        jobs=jobs,
    )
    if isinstance(features, np.ndarray):
        return make_pipeline(*steps, model)

    encoder = OneHotEncoder(
        # Named outright, as `max_categories` would make a group that ONNX does not know.
        categories=[_frequent(features[f"column_{i}"]) for i in texts],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )
    prepare = [("text", encoder, [f"column_{i}" for i in texts])]
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
    folds: npt.NDArray[Any],
    metric: Metric,
) -> Floats:
    """The losses of the rows in a fold, each by a model that was not fitted on it.

    Args:
        folds: [N] the fold of a row; −1 for rows that every model is fitted on.

    Raises:
        ValueError: as `fit`; also if an answer is no finite number.
    """
    losses = []
    for fold in range(int(folds.max()) + 1):
        unseen = folds == fold
        fitted = fit(clone(pipeline), features[~unseen], labels[~unseen])
        losses.append(row_losses(metric, truth[unseen], answer(fitted, features[unseen])))
    together = np.concatenate(losses)
    if not np.isfinite(together).all():
        raise ValueError("an answer is no finite number")
    return together


def _model(name: str, *, is_classifier: bool, rows: int, seed: int, jobs: int) -> Any:
    match name:
        case "linear":
            return LogisticRegression(max_iter=1000) if is_classifier else Ridge()
        case "random_forest":
            forest = RandomForestClassifier if is_classifier else RandomForestRegressor
            return forest(
                100,
                max_leaf_nodes=MAX_LEAVES,
                max_samples=min(1.0, MAX_SAMPLES / rows),
                n_jobs=jobs,
                random_state=seed,
            )
        case _:
            boosting = (
                HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
            )
            # Early stopping would hold out rows of its own, and fail where a class is rare.
            return boosting(early_stopping=False, random_state=seed)


def _frequent(values: Any) -> npt.NDArray[Any]:
    categories = values.value_counts().index[:MAX_CATEGORIES]
    return np.array(sorted(categories), dtype=object)
