"""Export a fitted pipeline to ONNX, and prove that both predict the same.

The graph takes the inputs that `registry.features` describes. It returns a classifier's labels [N]
and probabilities [N, classes], or a regressor's values [N, 1].
"""

from typing import Any

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder

from registry.features import MATRIX, feature_names, is_one_matrix
from registry.records import Signature
from registry.runtimes.runtime import Runtime
from registry.tolerances import NUMBER_TOLERANCE, PROBABILITY_TOLERANCE
from trainer.errors import ExportError
from trainer.modelling.boosters import OPSETS_OF_BOOSTERS, is_booster
from trainer.modelling.encoding import TEXTS
from trainer.modelling.fitting import predict
from trainer.modelling.serving import compute, outputs_of
from trainer.modelling.target_encoding import calculate_target_shapes, convert_target_encoder
from trainer.types import Features


def to_onnx(pipeline: Any, signature: Signature) -> bytes:
    """Convert a fitted pipeline, or an estimator without steps before it, to ONNX.

    Raises:
        ExportError: skl2onnx cannot convert it.
    """
    is_classifier = signature.classes is not None
    model = pipeline[-1] if isinstance(pipeline, Pipeline) else pipeline
    try:
        return convert(
            pipeline,
            signature,
            options={id(pipeline): {"zipmap": False}} if is_classifier else None,
            target_opset=OPSETS_OF_BOOSTERS if is_booster(model) else None,
        )
    except Exception as error:  # converters raise errors of any type
        raise ExportError(f"skl2onnx cannot convert it: {type(error).__name__}.") from error


def convert(fitted: Any, signature: Signature, **options: Any) -> bytes:
    """Return the graph of a fitted estimator, or of some steps of a pipeline.

    Args:
        options: further arguments of `convert_sklearn`.

    Raises:
        Exception: skl2onnx cannot convert it; the errors of converters share no base class.
    """
    model = convert_sklearn(
        fitted,
        name="tollgate",  # the default is random and would change the digest
        initial_types=onnx_inputs(signature),
        custom_conversion_functions=CONVERTERS,
        custom_shape_calculators={TargetEncoder: calculate_target_shapes},
        **options,
    )
    return bytes(model.SerializeToString())


def onnx_inputs(signature: Signature) -> list[tuple[str, Any]]:
    """Return the names and types of a graph's inputs."""
    if is_one_matrix(signature.columns):
        return [(MATRIX, FloatTensorType([None, len(signature.columns)]))]
    return [
        (name, (StringTensorType if column.kind in TEXTS else FloatTensorType)([None, 1]))
        for i, column in enumerate(signature.columns)
        for name in feature_names(i, column)
    ]


def prove_equal(
    runtime: Runtime, pipeline: Pipeline, features: Features, signature: Signature
) -> None:
    """Check that a model predicts the same as its pipeline, within `registry.tolerances`.

    Raises:
        ExportError: the two differ on a row.
    """
    output, wanted = compute(runtime, features, signature), predict(pipeline, features)
    given = outputs_of(output)
    if given.shape != wanted.shape:
        raise ExportError("The ONNX model's output has a different shape.")
    if output.probabilities is None:
        # Near 0 a float32 sum is precise only relative to the typical value, not to itself.
        slack = NUMBER_TOLERANCE * np.maximum(np.abs(wanted), np.abs(wanted).mean() * 0.01)
    elif not np.array_equal(output.predictions, pipeline.classes_[wanted.argmax(axis=1)]):
        raise ExportError("The ONNX model predicts different labels.")
    else:
        slack = np.full(wanted.shape, PROBABILITY_TOLERANCE)
    if not (np.abs(given - wanted) <= slack).all():
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


CONVERTERS = {
    HistGradientBoostingClassifier: _converter(HistGradientBoostingClassifier),
    HistGradientBoostingRegressor: _converter(HistGradientBoostingRegressor),
    TargetEncoder: convert_target_encoder,
}
