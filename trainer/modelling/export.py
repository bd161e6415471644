"""Export a fitted pipeline to ONNX, and prove that both predict the same.

The graph takes float32 `features` [N, n] when no column is text, else `column_0`, `column_1`, …,
each [N, 1], float32 or string. It returns a classifier's labels [N] and probabilities
[N, classes], or a regressor's values [N, 1].
"""

from typing import Any

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from registry.records import Signature
from trainer.errors import ExportError
from trainer.modelling.fitting import predict
from trainer.modelling.runtimes import Model
from trainer.types import Features

PROBABILITY_TOLERANCE = 1e-5
VALUE_TOLERANCE = 1e-4  # relative


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
