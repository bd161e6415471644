"""Run models that cannot be exported to ONNX: signed pickles, with scikit-learn itself.

Unpickling executes arbitrary code, so callers must verify the signature first, and check that the
operator allows pickles. scikit-learn is imported only then.
"""

import io
import warnings
from importlib import metadata
from typing import Any

import numpy as np

from registry.features import MATRIX, Arrays, column_input, is_one_matrix
from registry.records import Manifest, VersionRefused
from registry.runtimes.runtime import InferenceResponse, check_finite


class PickledRuntime:
    """One loaded scikit-learn pipeline; safe to call from several threads at once.

    Args:
        content: the bytes of a verified `model.joblib`.

    Raises:
        VersionRefused: scikit-learn is missing or differs from the version used for training, or
            the pipeline does not match the signature.
        Exception: unpickling failed.
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

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> InferenceResponse:
        """Predict as described in `Runtime`."""
        features = _features(arrays)
        labels = np.asarray(self._pipeline.predict(features))
        scores = np.asarray(self._pipeline.predict_proba(features)) if probabilities else None
        check_finite(labels if scores is None else scores)
        predictions = labels.ravel().tolist()
        if self._boolean:
            predictions = [bool(label) for label in predictions]
        return InferenceResponse(predictions, None if scores is None else scores.tolist())


def _features(arrays: Arrays) -> Any:
    """Return the pipeline's input: [rows, columns], or a table of `column_<i>` if there is text."""
    if MATRIX in arrays:
        return arrays[MATRIX]
    import pandas

    return pandas.DataFrame({name: array.ravel() for name, array in arrays.items()})


def _check_environment(manifest: Manifest) -> None:
    trained_with = manifest.environment
    try:
        is_same = metadata.version("scikit-learn") == trained_with.get("scikit-learn") and _major(
            metadata.version("numpy")
        ) == _major(trained_with.get("numpy", ""))
    except metadata.PackageNotFoundError:
        raise _refusal(manifest, "needs scikit-learn, which is not installed") from None
    if not is_same:
        raise _refusal(manifest, "was trained with another version of scikit-learn or numpy")


def _check_signature(pipeline: Any, manifest: Manifest) -> None:
    columns, classes = manifest.signature.columns, manifest.signature.classes
    if not is_one_matrix(columns):
        expected = [column_input(i) for i in range(len(columns))]
        fits = list(getattr(pipeline, "feature_names_in_", [])) == expected
    else:
        fits = getattr(pipeline, "n_features_in_", None) == len(columns)
    if classes is not None:
        fits = fits and np.asarray(getattr(pipeline, "classes_", [])).tolist() == classes
    if not fits:
        raise _refusal(manifest, "does not match its signature")


def _major(version: str) -> str:
    return version.partition(".")[0]


def _refusal(manifest: Manifest, why: str) -> VersionRefused:
    return VersionRefused(f"{manifest.model} {manifest.version} {why}.", reason="runtime")
