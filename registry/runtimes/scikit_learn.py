"""Run models that cannot be exported to ONNX: signed pickles, with scikit-learn itself.

Unpickling executes arbitrary code, so callers must verify the signature first, and check that the
operator allows pickles. scikit-learn is imported only then.
"""

import io
import platform
import warnings
from importlib import metadata
from typing import Any

import numpy as np

from registry.features import MATRIX, Arrays, column_input, feature_names, is_one_matrix
from registry.origins import Origin
from registry.records import Manifest, Signature, VersionRefused
from registry.runtimes.runtime import ModelOutput, Runtime


class PipelineRuntime(Runtime):
    """One scikit-learn pipeline."""

    def __init__(self, pipeline: Any, signature: Signature, *, expands: bool = True) -> None:
        super().__init__(signature, expands=expands)
        self._pipeline = pipeline

    def compute(self, inputs: Arrays, *, probabilities: bool = False) -> ModelOutput:
        """Run the pipeline."""
        features = _features(inputs)
        labels = np.asarray(self._pipeline.predict(features))
        scores = np.asarray(self._pipeline.predict_proba(features)) if probabilities else None
        return ModelOutput(labels.ravel(), scores)


def load_pickled(content: bytes, manifest: Manifest) -> PipelineRuntime:
    """Load a pickled pipeline.

    Args:
        content: the bytes of a verified `model.joblib`.

    Raises:
        VersionRefused: scikit-learn is missing or differs from the version used for training, or
            the pipeline does not match the signature.
        Exception: unpickling failed.
    """
    _check_environment(manifest)
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        pipeline = joblib.load(io.BytesIO(content))
    _check_signature(pipeline, manifest)
    return PipelineRuntime(pipeline, manifest.signature, expands=manifest.origin is None)


def _features(inputs: Arrays) -> Any:
    """Return the pipeline's input: [rows, columns], or a table of named features."""
    if MATRIX in inputs:
        return inputs[MATRIX]
    import pandas

    return pandas.DataFrame({name: array.ravel() for name, array in inputs.items()})


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
    if manifest.origin is not None:
        _check_origin(manifest, manifest.origin)


def _check_origin(manifest: Manifest, origin: Origin) -> None:
    """Check what a pickle of the owner's code needs: its bytecode suits one version of Python."""
    python = manifest.environment.get("python", "")
    if python.split(".")[:2] != platform.python_version().split(".")[:2]:
        raise _refusal(manifest, f"needs Python {'.'.join(python.split('.')[:2])}")
    for package, version in origin.requires.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise _refusal(manifest, f"needs {package} {version}, which is not installed") from None
        if found != version:
            raise _refusal(manifest, f"needs {package} {version}, not {found}")


def _check_signature(pipeline: Any, manifest: Manifest) -> None:
    columns, classes = manifest.signature.columns, manifest.signature.classes
    if not is_one_matrix(columns):
        expected = [
            name
            for i, each in enumerate(columns)
            for name in ([column_input(i)] if manifest.origin else feature_names(i, each))
        ]
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
