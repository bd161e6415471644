"""Read scikit-learn estimators from joblib, cloudpickle, pickle and skops files."""

import io
import warnings
import zipfile
from typing import Any

import joblib
import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning

from registry.origins import ImportFormat
from registry.records import Signature
from trainer.importing.finished import (
    MAX_MODEL_BYTES,
    FinishedModel,
    ModelFileError,
    failures_of,
)
from trainer.modelling.export import to_onnx
from trainer.types import Kind
from trainer.wording import listed

TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""What skops does not trust by itself, but whose loading executes no code of the file's author."""
MAX_NAMED = 5


def read_pickle(content: bytes, name: str, *, trust_pickle: bool) -> FinishedModel:
    """Read an estimator from a joblib, cloudpickle or pickle file.

    Raises:
        ModelFileError: pickles are not trusted, it cannot be loaded, or is no such estimator.
    """
    if not trust_pickle:
        raise ModelFileError(
            f"{name}: is a pickle, and opening it executes code in it. If you trust its author, "
            "use --trust-pickle."
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with failures_of(name, "the pickle cannot be loaded"):
            estimator = joblib.load(io.BytesIO(content))
    return _describe(estimator, content, name, file_format="joblib", notes=_describe_age(caught))


def read_skops(content: bytes, name: str) -> FinishedModel:
    """Read an estimator from a skops file, which may only contain types known to be safe.

    Raises:
        ModelFileError: it cannot be loaded, contains other types, or is no such estimator.
    """
    with failures_of(name, "skops files cannot be read here"):
        import skops.io
    with failures_of(name, "the skops file is damaged"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_MODEL_BYTES:
            raise ModelFileError(
                f"{name}: unpacks to {unpacked:,} bytes; the maximum is {MAX_MODEL_BYTES:,}."
            )
        untrusted = sorted(set(skops.io.get_untrusted_types(data=content)) - TRUSTED_TYPES)
        if untrusted:
            raise ModelFileError(
                f"{name}: contains types that are not trusted: "
                f"{listed(untrusted, most=MAX_NAMED)}. Save it with joblib, and use --trust-pickle."
            )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator = skops.io.loads(content, trusted=sorted(TRUSTED_TYPES))
    return _describe(estimator, content, name, file_format="skops", notes=_describe_age(caught))


def _describe(
    estimator: Any, content: bytes, name: str, *, file_format: ImportFormat, notes: list[str]
) -> FinishedModel:
    kind = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "predict"):
        raise ModelFileError(f"{name}: contains a {kind}, which is not a scikit-learn estimator.")
    with failures_of(name, f"the {kind} cannot be inspected"):
        classifier = is_classifier(estimator)
        if not classifier and not is_regressor(estimator):
            raise ModelFileError(f"{name}: a {kind} is neither a classifier nor a regressor.")
        if classifier and not hasattr(estimator, "predict_proba"):
            raise ModelFileError(
                f"{name}: the {kind} has no predict_proba, which the gate needs; wrap it in "
                "CalibratedClassifierCV, or it is not fitted."
            )
        columns = _attribute(estimator, "feature_names_in_")
        width = _attribute(estimator, "n_features_in_")
        classes = _attribute(estimator, "classes_") if classifier else None
        if classifier and (classes is None or isinstance(classes, list)):
            raise ModelFileError(f"{name}: the {kind} is not fitted, or has several targets.")
        return FinishedModel(
            format=file_format,
            content=content,
            extension="skops" if file_format == "skops" else "joblib",
            task="classification" if classifier else "regression",
            columns=None if columns is None else [str(each) for each in columns],
            width=None if width is None else int(width),
            build=lambda signature: estimator,
            convert=_convert,
            classes=None if classes is None else np.asarray(classes).tolist(),
            kinds=_find_kinds(estimator, columns),
            pickles=True,
            notes=notes,
        )


def _convert(pipeline: Any, signature: Signature) -> bytes:
    return to_onnx(pipeline, signature)


def _attribute(estimator: Any, name: str) -> Any:
    """Return a fitted attribute, or None: libraries raise various errors."""
    try:
        return getattr(estimator, name)
    except Exception:  # scikit-learn's delegating properties raise more than AttributeError
        return None


def _find_kinds(estimator: Any, columns: Any) -> dict[str, Kind]:
    """Return the columns that a first `ColumnTransformer` encodes as text."""
    steps = getattr(estimator, "steps", None)
    first = steps[0][1] if steps else estimator
    kinds: dict[str, Kind] = {}
    if columns is None or not isinstance(first, ColumnTransformer):
        return kinds
    for _, transformer, chosen in first.transformers_:
        encoder = transformer.steps[-1][1] if hasattr(transformer, "steps") else transformer
        categories = getattr(encoder, "categories_", None)
        if categories is None or not isinstance(chosen, list):
            continue
        for column, values in zip(chosen, categories, strict=False):
            # Missing values, which are categories too, may be None or NaN.
            is_text = values.dtype == object and any(isinstance(value, str) for value in values)
            if isinstance(column, str) and is_text:
                kinds[column] = "text"
    return kinds


def _describe_age(caught: list[warnings.WarningMessage]) -> list[str]:
    """Return a note if another version of scikit-learn saved the model."""
    for each in caught:
        if isinstance(each.message, InconsistentVersionWarning):
            return [
                f"It was saved by scikit-learn {each.message.original_sklearn_version} and runs on "
                f"{each.message.current_sklearn_version} here; it is judged as it runs here."
            ]
    return []
