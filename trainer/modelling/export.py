"""Export a fitted pipeline to ONNX, and prove that both predict the same.

The graph takes the inputs that `registry.features` describes. It returns a classifier's labels [N]
and probabilities [N, classes], or a regressor's values [N, 1].
"""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from registry.features import MATRIX, feature_names, is_one_matrix
from registry.records import Signature
from registry.runtimes.named_table import NamedTable
from registry.runtimes.runtime import Runtime
from registry.tolerances import NUMBER_TOLERANCE, PROBABILITY_TOLERANCE
from trainer.errors import ExportError
from trainer.modelling.boosters import OPSETS_OF_BOOSTERS, is_booster, register_converters
from trainer.modelling.encoding import TEXTS
from trainer.modelling.fitting import predict
from trainer.modelling.graphs import feed_columns
from trainer.modelling.serving import compute, outputs_of
from trainer.modelling.target_encoding import calculate_target_shapes, convert_target_encoder
from trainer.types import Features


def to_onnx(pipeline: Any, signature: Signature) -> bytes:
    """Convert a fitted pipeline, or an estimator without steps before it, to ONNX.

    Raises:
        ExportError: skl2onnx cannot convert it.
    """
    try:
        return convert(pipeline, signature)
    except ExportError:
        raise
    except Exception as error:  # converters raise errors of any type
        raise ExportError(f"skl2onnx cannot convert it: {type(error).__name__}.") from error


def convert(fitted: Any, signature: Signature) -> bytes:
    """Return the graph of a fitted estimator, or of some steps of a pipeline.

    Raises:
        Exception: skl2onnx cannot convert it; the errors of converters share no base class.
    """
    if isinstance(fitted, Pipeline) and isinstance(fitted[0], NamedTable):
        return _convert_named(fitted, signature)
    return bytes(_convert(fitted, onnx_inputs(signature)).SerializeToString())


def _convert_named(fitted: Pipeline, signature: Signature) -> bytes:
    """Convert a pipeline whose first step, a `NamedTable`, gives the others a table."""
    columns = signature.columns
    if any(column.kind == "datetime" for column in columns):
        raise ExportError("A model of the owner's that takes times has no ONNX form.")
    model = _copy_for_export(Pipeline(fitted.steps[1:]))
    if is_one_matrix(columns):
        with suppress(Exception):  # it selects columns by name
            return bytes(_convert(model, onnx_inputs(signature)).SerializeToString())
    inputs = [(column.name, _type_of(column.kind)) for column in columns]
    converted = _convert(model, inputs)
    if len(converted.graph.input) != len(columns):
        raise ExportError("Its ONNX form does not take every column.")
    feed_columns(converted, signature)
    return bytes(converted.SerializeToString())


def _copy_for_export(model: Any) -> Any:
    """Return a copy of a fitted model for which missing text is "" instead of NaN."""
    copied = deepcopy(model)
    for estimator in _nested_estimators(copied):
        if isinstance(estimator, OneHotEncoder | OrdinalEncoder):
            estimator.categories_ = [
                np.array([each if isinstance(each, str) else "" for each in values], dtype=object)
                if any(isinstance(each, str) for each in values)
                else values
                for values in getattr(estimator, "categories_", [])  # none in unfitted copies
            ]
        elif isinstance(estimator, SimpleImputer) and _fills_text(estimator):
            estimator.missing_values = ""
        elif hasattr(estimator, "get_booster"):
            estimator.get_booster().feature_names = None  # XGBoost's converter wants none
    return copied


def _fills_text(imputer: SimpleImputer) -> bool:
    return getattr(imputer, "statistics_", np.empty(0)).dtype == object


def _nested_estimators(model: Any) -> Iterator[Any]:
    """Yield a fitted estimator and all those in its fields."""
    if isinstance(model, BaseEstimator):
        yield model
        for value in vars(model).values():
            yield from _nested_estimators(value)
    elif isinstance(model, list | tuple):
        for value in model:
            yield from _nested_estimators(value)


def _convert(fitted: Any, inputs: list[tuple[str, Any]]) -> Any:
    boosters = [each for each in _nested_estimators(fitted) if is_booster(each)]
    register_converters(boosters)
    return convert_sklearn(
        fitted,
        name="tollgate",  # the default is random and would change the digest
        initial_types=inputs,
        options={id(fitted): {"zipmap": False}} if hasattr(fitted, "predict_proba") else None,
        custom_conversion_functions=CONVERTERS,
        custom_shape_calculators={TargetEncoder: calculate_target_shapes},
        target_opset=OPSETS_OF_BOOSTERS if boosters else None,
    )


def _type_of(kind: str) -> Any:
    return (StringTensorType if kind in TEXTS else FloatTensorType)([None, 1])


def onnx_inputs(signature: Signature) -> list[tuple[str, Any]]:
    """Return the names and types of a graph's inputs."""
    if is_one_matrix(signature.columns):
        return [(MATRIX, FloatTensorType([None, len(signature.columns)]))]
    return [
        (name, _type_of(column.kind))
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
    if not np.isfinite(wanted).all():
        raise ExportError("The model predicts NaN or infinity.")
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
