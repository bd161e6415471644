"""Export a fitted pipeline to ONNX, and prove that both predict the same.

The graph takes float32 `features` [N, n] when no column is text, else `column_0`, `column_1`, …,
each [N, 1], float32 or string. It returns a classifier's labels [N] and probabilities
[N, classes], or a regressor's values [N, 1].
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from services.common.model_records import Column, Label, Signature
from trainer.data.problem import encode_in_batches
from trainer.errors import ExportError
from trainer.modelling.candidates import predict
from trainer.types import Features, Indices, Outputs

PROBABILITY_TOLERANCE = 1e-5
VALUE_TOLERANCE = 1e-4  # relative


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


def to_onnx(pipeline: Pipeline, signature: Signature) -> bytes:
    """Convert a fitted pipeline to ONNX.

    Raises:
        ExportError: skl2onnx cannot convert it.
    """
    kinds = [column.kind for column in signature.columns]
    if "text" in kinds:
        inputs = [
            (f"column_{i}", (StringTensorType if kind == "text" else FloatTensorType)([None, 1]))
            for i, kind in enumerate(kinds)
        ]
    else:
        inputs = [("features", FloatTensorType([None, len(kinds)]))]
    is_classifier = signature.classes is not None
    try:
        model = convert_sklearn(
            pipeline,
            name="tollgate",  # the default is random and would change the digest
            initial_types=inputs,
            options={id(pipeline): {"zipmap": False}} if is_classifier else None,
            custom_conversion_functions=BOOSTING_CONVERTERS,
        )
    except Exception as error:  # converters raise errors of any type
        raise ExportError(f"skl2onnx cannot convert it: {type(error).__name__}.") from error
    return bytes(model.SerializeToString())


def predict_rows(
    model: Model, table: pd.DataFrame, columns: list[Column], rows: Indices
) -> Outputs:
    """Return the outputs for some rows of a table, predicted in batches."""
    batches = encode_in_batches(table, columns, rows)
    return np.concatenate([model.predict(features).outputs for features in batches])


def prove_equal(model: Model, pipeline: Pipeline, features: Features) -> None:
    """Check that labels are identical, probabilities within 1e-5 and values within 1e-4 relative.

    Raises:
        ExportError: the two models differ on a row.
    """
    given, wanted = model.predict(features), predict(pipeline, features)
    if given.outputs.shape != wanted.shape:
        raise ExportError("The ONNX model's output has a different shape.")
    if given.labels is None:
        # Near 0 a float32 sum is precise only relative to the typical value, not to itself.
        slack = VALUE_TOLERANCE * np.maximum(np.abs(wanted), np.abs(wanted).mean() * 0.01)
    elif not np.array_equal(given.labels, pipeline.classes_[wanted.argmax(axis=1)]):
        raise ExportError("The ONNX model predicts different labels.")
    else:
        slack = np.full(wanted.shape, PROBABILITY_TOLERANCE)
    if not (np.abs(given.outputs - wanted) <= slack).all():
        raise ExportError("The ONNX model predicts different numbers.")


def _as_input(values: "pd.Series[Any]") -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy().reshape(-1, 1))


class _PlainIntegers:
    """A wrapper of the graph under construction that turns numpy integers into plain ints.

    skl2onnx 1.20 passes numpy integers and booleans for histogram gradient boosting, which newer
    versions of onnx reject.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> None:
        """Add a node, with plain ints in its attributes."""
        self._container.add_node(*args, **{k: _plain(v) for k, v in attributes.items()})


def _plain(attribute: Any) -> Any:
    integers = (int, np.integer, np.bool_)
    if isinstance(attribute, list) and all(isinstance(item, integers) for item in attribute):
        return [int(item) for item in attribute]
    return attribute


def _converter(model: type) -> Any:
    convert = get_converter(f"Sklearn{model.__name__}")
    return lambda scope, operator, container: convert(scope, operator, _PlainIntegers(container))


BOOSTING_CONVERTERS = {
    model: _converter(model)
    for model in (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
}
