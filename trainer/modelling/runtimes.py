"""Run a model as it is served: by ONNX Runtime, or by scikit-learn for one without an ONNX form."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
from sklearn.pipeline import Pipeline

from registry.records import Column, Label, Signature
from trainer.errors import ExportError
from trainer.modelling.encoding import encode_in_batches
from trainer.modelling.fitting import predict
from trainer.types import Features, Indices, Outputs


class Model(Protocol):
    """A model that predicts exactly as it will when it is served."""

    def predict(self, features: Features) -> "Predictions":
        """Predict N rows."""
        ...


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for N rows.

    Args:
        labels: [N] int64 or str; None for regression.
        outputs: probabilities [N, classes], or values [N].
    """

    labels: npt.NDArray[Any] | None
    outputs: Outputs

    def for_clients(self, classes: list[Label] | None) -> list[Any]:
        """Return the predictions as clients receive them: classes or numbers."""
        if self.labels is None or classes is None:
            return [float(value) for value in self.outputs]
        # The graph returns booleans as 0 and 1, which equal False and True.
        by_value = {label: label for label in classes}
        return [by_value[label] for label in self.labels.tolist()]


@dataclass(frozen=True)
class PickledModel:
    """A pipeline without an ONNX form."""

    pipeline: Pipeline
    is_classifier: bool

    def predict(self, features: Features) -> Predictions:
        """Predict N rows."""
        outputs = predict(self.pipeline, features)
        if not self.is_classifier:
            return Predictions(labels=None, outputs=outputs)
        return Predictions(labels=self.pipeline.classes_[outputs.argmax(axis=1)], outputs=outputs)


class OnnxModel:
    """An ONNX model in memory, on one thread.

    Raises:
        ExportError: ONNX Runtime cannot load the model.
    """

    def __init__(self, content: bytes, signature: Signature) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise ExportError("ONNX Runtime cannot load the model.") from error
        self._is_classifier = signature.classes is not None

    def predict(self, features: Features) -> Predictions:
        """Predict N rows.

        Raises:
            ExportError: the graph rejects them.
        """
        if isinstance(features, np.ndarray):
            feeds = {"features": features}
        else:
            feeds = {name: _as_input(features[name]) for name in features}
        try:
            first, *others = self._session.run(None, feeds)
        except Exception as error:
            raise ExportError("ONNX Runtime cannot run the model.") from error
        if self._is_classifier:
            return Predictions(labels=first, outputs=others[0])
        return Predictions(labels=None, outputs=first.reshape(-1))


def predict_rows(
    model: Model, table: pd.DataFrame, columns: list[Column], rows: Indices
) -> Outputs:
    """Return the outputs for some rows of a table, predicted in batches."""
    batches = encode_in_batches(table, columns, rows)
    return np.concatenate([model.predict(features).outputs for features in batches])


def _as_input(values: "pd.Series[Any]") -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy().reshape(-1, 1))
