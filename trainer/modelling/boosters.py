"""LightGBM and XGBoost, the families of the extra `boosters`; imported only where they are used."""

from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight

OPSETS_OF_BOOSTERS = {"": 21, "ai.onnx.ml": 3}
"""The newest that the converters of onnxmltools know."""
_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False]}


class PositionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of any labels by one that only takes 0, 1, …, and has no class weights."""

    def __init__(self, model: Any = None, class_weight: str | None = None) -> None:
        self.model = model
        self.class_weight = class_weight

    def fit(self, features: Any, labels: npt.NDArray[Any]) -> Self:
        """Fit the model on the labels' positions in `classes_`."""
        self.classes_, positions = np.unique(labels, return_inverse=True)
        weights = None
        if self.class_weight is not None:
            weights = compute_sample_weight(self.class_weight, positions)
        self.model.fit(features, positions, sample_weight=weights)
        return self

    def predict(self, features: Any) -> npt.NDArray[Any]:
        """Return labels [N]."""
        return np.asarray(self.classes_[self.model.predict_proba(features).argmax(axis=1)])

    def predict_proba(self, features: Any) -> npt.NDArray[Any]:
        """Return probabilities [N, classes]."""
        return np.asarray(self.model.predict_proba(features))


def build_lightgbm(options: dict[str, Any], *, is_classifier: bool, seed: int, jobs: int) -> Any:
    """Return an unfitted model, which gives the same result with any number of threads."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    return (LGBMClassifier if is_classifier else LGBMRegressor)(
        deterministic=True,
        force_row_wise=True,
        n_jobs=jobs,
        random_state=seed,
        verbose=-1,
        **options,
    )


def build_xgboost(options: dict[str, Any], *, is_classifier: bool, seed: int) -> Any:
    """Return an unfitted model of one thread: its sums depend on the number of threads."""
    from xgboost import XGBClassifier, XGBRegressor

    class_weight = options.pop("class_weight", None)
    options |= {"n_jobs": 1, "random_state": seed, "tree_method": "hist", "verbosity": 0}
    if is_classifier:
        return PositionClassifier(XGBClassifier(**options), class_weight)
    return XGBRegressor(**options)


def is_booster(model: Any) -> bool:
    """Return whether a model is of a family of this module."""
    return type(model).__module__.partition(".")[0] in ("lightgbm", "xgboost") or isinstance(
        model, PositionClassifier
    )


def register_converters(models: list[Any]) -> None:
    """Make skl2onnx know the converters of some models of the libraries."""
    libraries = {type(getattr(each, "model", each)).__module__.partition(".")[0] for each in models}
    if "lightgbm" in libraries:
        _register_lightgbm()
    if "xgboost" in libraries:
        _register_xgboost()


@cache
def _register_lightgbm() -> None:
    """Make skl2onnx know the converters of onnxmltools."""
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    _register(LGBMClassifier, convert_lightgbm, is_classifier=True)
    _register(LGBMRegressor, convert_lightgbm, is_classifier=False)


@cache
def _register_xgboost() -> None:
    """Make skl2onnx know the converters of onnxmltools, and one for the labels."""
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier, XGBRegressor

    _register(XGBClassifier, convert_xgboost, is_classifier=True)
    _register(XGBRegressor, convert_xgboost, is_classifier=False)
    _register(PositionClassifier, _convert_positions, is_classifier=True)


def _register(model: type, convert: Any, *, is_classifier: bool) -> None:
    shapes = (
        calculate_linear_classifier_output_shapes
        if is_classifier
        else calculate_linear_regressor_output_shapes
    )
    update_registered_converter(
        model, _alias(model), shapes, convert, options=_OPTIONS if is_classifier else None
    )


def _alias(model: type) -> str:
    return f"Tollgate{model.__name__}"


def _convert_positions(scope: Any, operator: Any, container: Any) -> None:
    """Convert a `PositionClassifier`: its model, and the labels at the predicted positions."""
    fitted: PositionClassifier = operator.raw_operator
    inner = scope.declare_local_operator(_alias(type(fitted.model)), fitted.model)
    inner.inputs.append(operator.inputs[0])
    positions = scope.declare_local_variable("positions", Int64TensorType())
    scores = scope.declare_local_variable("scores", FloatTensorType())
    inner.outputs.extend((positions, scores))

    labels = fitted.classes_.tolist()
    is_text = isinstance(labels[0], str)
    container.add_node(
        "LabelEncoder",
        positions.full_name,
        operator.outputs[0].full_name,
        op_domain="ai.onnx.ml",
        op_version=2,
        name=scope.get_unique_operator_name("Labels"),
        keys_int64s=list(range(len(labels))),
        **{"values_strings" if is_text else "values_int64s": labels},
    )
    container.add_node(
        "Identity",
        scores.full_name,
        operator.outputs[1].full_name,
        name=scope.get_unique_operator_name("Scores"),
    )
