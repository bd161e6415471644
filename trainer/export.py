"""A fitted pipeline as ONNX, and the proof that both answer alike.

The graph takes float32 `features` [N, n] when no column is text, else `column_0`, `column_1`, …,
each [N, 1], float32 or string. It gives a classifier's labels [N] and probabilities [N, classes],
or a regressor's values [N, 1].
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
from trainer.candidates import answer
from trainer.columns import encode_in_turn
from trainer.errors import ExportError
from trainer.kinds import Features, Indices, Outputs

PROBABILITY_TOLERANCE = 1e-5
VALUE_TOLERANCE = 1e-4  # relative


class Model(Protocol):
    """What answers as it will be served."""

    def answer(self, features: Features) -> "Answers":
        """Answer N rows."""
        ...


@dataclass(frozen=True)
class Answers:
    """What a model says of N rows.

    Args:
        labels: [N] int64 or str; None for regression.
        outputs: probabilities [N, classes], or values [N].
    """

    labels: npt.NDArray[Any] | None
    outputs: Outputs

    def predictions(self, classes: list[Label] | None) -> list[Any]:
        """As a client gets them: classes, or numbers."""
        if self.labels is None or classes is None:
            return [float(value) for value in self.outputs]
        # Booleans come out of the graph as 0 and 1, which equal them.
        by_value = {label: label for label in classes}
        return [by_value[label] for label in self.labels.tolist()]


@dataclass(frozen=True)
class PickledModel:
    """A pipeline that answers for itself, as it has no ONNX form."""

    pipeline: Pipeline
    is_classifier: bool

    def answer(self, features: Features) -> Answers:
        """Answer N rows."""
        outputs = answer(self.pipeline, features)
        if not self.is_classifier:
            return Answers(labels=None, outputs=outputs)
        return Answers(labels=self.pipeline.classes_[outputs.argmax(axis=1)], outputs=outputs)


class OnnxModel:
    """An ONNX model in memory, on one thread.

    Raises:
        ExportError: the bytes are no model that ONNX Runtime can load.
    """

    def __init__(self, content: bytes, signature: Signature) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise ExportError("ONNX Runtime cannot load the model.") from error
        self._is_classifier = signature.classes is not None

    def answer(self, features: Features) -> Answers:
        """Answer N rows.

        Raises:
            ExportError: the graph does not take them.
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
            return Answers(labels=first, outputs=others[0])
        return Answers(labels=None, outputs=first.reshape(-1))


def to_onnx(pipeline: Pipeline, signature: Signature) -> bytes:
    """Convert a fitted pipeline.

    Raises:
        ExportError: skl2onnx cannot.
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
            name="tollgate",  # by default a random one, which would change the digest
            initial_types=inputs,
            options={id(pipeline): {"zipmap": False}} if is_classifier else None,
            custom_conversion_functions=BOOSTING_CONVERTERS,
        )
    except Exception as error:  # it raises whatever its converters do
        raise ExportError(f"skl2onnx cannot convert it: {type(error).__name__}.") from error
    return bytes(model.SerializeToString())


def answer_rows(model: Model, table: pd.DataFrame, columns: list[Column], rows: Indices) -> Outputs:
    """The outputs for some rows of a table."""
    batches = encode_in_turn(table, columns, rows)
    return np.concatenate([model.answer(features).outputs for features in batches])


def prove_equal(model: Model, pipeline: Pipeline, features: Features) -> None:
    """Labels identical, probabilities within 1e-5, values within 1e-4 of their size.

    Raises:
        ExportError: the two differ on one of the rows.
    """
    given, wanted = model.answer(features), answer(pipeline, features)
    if given.outputs.shape != wanted.shape:
        raise ExportError("The ONNX model's answer has another shape.")
    if given.labels is None:
        # Around 0 no float32 sum is precise relative to itself, only to the values at large.
        slack = VALUE_TOLERANCE * np.maximum(np.abs(wanted), np.abs(wanted).mean() * 0.01)
    elif not np.array_equal(given.labels, pipeline.classes_[wanted.argmax(axis=1)]):
        raise ExportError("The ONNX model gives other labels.")
    else:
        slack = np.full(wanted.shape, PROBABILITY_TOLERANCE)
    if not (np.abs(given.outputs - wanted) <= slack).all():
        raise ExportError("The ONNX model gives other numbers.")


def _as_input(values: "pd.Series[Any]") -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy().reshape(-1, 1))


class _PlainIntegers:
    """A graph under construction, for converters that hand numpy scalars and booleans to ONNX.

    skl2onnx 1.20 does so for histogram gradient boosting, and newer onnx insists on plain ints.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> None:
        """Add a node, with plain ints in its lists."""
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
