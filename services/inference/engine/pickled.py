"""Runs what could not be exported: scikit-learn itself, on a pickle that somebody trusted signed.

Unpickling runs whatever code the pickle says, so the bytes must have been verified and the operator
must have allowed it before anything here is called. scikit-learn is imported only then.
"""

import io
import warnings
from importlib import metadata
from typing import Any

import numpy as np

from services.common.model_store import Manifest, VersionRefused
from services.inference.engine.runtime import Answer, check_finite
from services.inference.models.inputs import Arrays


class PickledRuntime:
    """One loaded scikit-learn pipeline; safe to call from several threads at once.

    Args:
        content: the bytes of a verified `model.joblib`.

    Raises:
        VersionRefused: scikit-learn is not here or is another than the pickle was made with, or
            the pipeline does not take and give what the signature says.
        Exception: whatever unpickling raises.
    """

    def __init__(self, content: bytes, manifest: Manifest) -> None:
        _check_environment(manifest)
        import joblib
        from sklearn.exceptions import InconsistentVersionWarning

        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            self._pipeline = joblib.load(io.BytesIO(content))
        _check_signature(self._pipeline, manifest)
        self._boolean = any(label is True for label in manifest.signature.classes or [])

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> Answer:
        """Predict; see `Runtime`."""
        features = _features(arrays)
        labels = np.asarray(self._pipeline.predict(features))
        shares = np.asarray(self._pipeline.predict_proba(features)) if probabilities else None
        check_finite(labels if shares is None else shares)
        predictions = labels.ravel().tolist()
        if self._boolean:
            predictions = [bool(label) for label in predictions]
        return Answer(predictions, None if shares is None else shares.tolist())


def _features(arrays: Arrays) -> Any:
    """As the pipeline was fitted: [rows, columns], or with text a table of `column_<i>`."""
    if "features" in arrays:
        return arrays["features"]
    import pandas

    return pandas.DataFrame({name: array.ravel() for name, array in arrays.items()})


def _check_environment(manifest: Manifest) -> None:
    made_with = manifest.environment
    try:
        same = metadata.version("scikit-learn") == made_with.get("scikit-learn") and _major(
            metadata.version("numpy")
        ) == _major(made_with.get("numpy", ""))
    except metadata.PackageNotFoundError:
        raise _refusal(manifest, "needs scikit-learn, which is not installed here") from None
    if not same:
        raise _refusal(manifest, "was made with another scikit-learn or numpy than is here")


def _check_signature(pipeline: Any, manifest: Manifest) -> None:
    columns, classes = manifest.signature.columns, manifest.signature.classes
    if any(column.kind == "text" for column in columns):
        wanted = [f"column_{i}" for i in range(len(columns))]
        fits = list(getattr(pipeline, "feature_names_in_", [])) == wanted
    else:
        fits = getattr(pipeline, "n_features_in_", None) == len(columns)
    if classes is not None:
        fits = fits and np.asarray(getattr(pipeline, "classes_", [])).tolist() == classes
    if not fits:
        raise _refusal(manifest, "does not take and give what its signature says")


def _major(version: str) -> str:
    return version.partition(".")[0]


def _refusal(manifest: Manifest, why: str) -> VersionRefused:
    return VersionRefused(f"{manifest.model} {manifest.version} {why}.", reason="runtime")
