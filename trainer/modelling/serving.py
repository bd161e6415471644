"""Predict with a model exactly as it will be served: by the registry's runtimes."""

import numpy as np
import pandas as pd

from registry.features import MATRIX, Arrays
from registry.records import Signature
from registry.runtimes.onnx import OnnxRuntime
from registry.runtimes.runtime import ModelOutput, Runtime
from trainer.errors import ExportError, TrainerError
from trainer.modelling.encoding import encode_in_batches
from trainer.types import Features, Indices, Outputs


def load_onnx(content: bytes, signature: Signature, *, expands: bool = True) -> OnnxRuntime:
    """Load an ONNX model; one of the owner's does not expand its inputs.

    Raises:
        ExportError: ONNX Runtime cannot load it.
    """
    try:
        return OnnxRuntime(content, signature, expands=expands)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise ExportError("ONNX Runtime cannot load the model.") from error


def compute(runtime: Runtime, features: Features, signature: Signature) -> ModelOutput:
    """Run a model on N rows, with probabilities if it is a classifier.

    Raises:
        ExportError: the model rejects the rows.
    """
    try:
        return runtime.compute(to_inputs(features), probabilities=signature.classes is not None)
    except Exception as error:
        raise ExportError("The serving runtime cannot run the model.") from error


def predict_rows(
    runtime: Runtime, table: pd.DataFrame, signature: Signature, rows: Indices
) -> Outputs:
    """Return the outputs for some rows of a table, predicted in batches."""
    batches = encode_in_batches(table, signature, rows, expanded=runtime.expands)
    return np.concatenate(
        [outputs_of(compute(runtime, features, signature)) for features in batches]
    )


def check_finite(outputs: Outputs, *, rows: str = "held-out rows") -> None:
    """Check the outputs of N rows.

    Raises:
        TrainerError: one of them is NaN or infinite.
    """
    finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
    if not finite.all():
        bad = int((~finite).sum())
        raise TrainerError(
            f"The model predicts NaN or infinity for {bad:,} of {len(outputs):,} {rows}."
        )


def outputs_of(output: ModelOutput) -> Outputs:
    """Return a classifier's probabilities [N, classes] or a regressor's values [N]."""
    return output.predictions if output.probabilities is None else output.probabilities


def to_inputs(features: Features) -> Arrays:
    """Return encoded features as the inputs of a served model (see `registry.features`)."""
    if isinstance(features, np.ndarray):
        return {MATRIX: features}
    return {name: np.asarray(features[name]).reshape(-1, 1) for name in features}
