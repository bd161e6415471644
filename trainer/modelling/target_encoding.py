"""The ONNX form of scikit-learn's `TargetEncoder`; that of skl2onnx lacks several classes.

For each column, the position of the category selects a row of a table with one number, or one per
class. The last row is that of unknown categories.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import FloatTensorType
from sklearn.preprocessing import TargetEncoder


def calculate_target_shapes(operator: Any) -> None:
    """Set the type of the output: a number per column, or per column and class."""
    fitted: TargetEncoder = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = FloatTensorType([rows, len(fitted.encodings_)])


def convert_target_encoder(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of an encoder whose inputs are text columns, [N, 1] each or [N, columns]."""
    fitted: TargetEncoder = operator.raw_operator
    means = np.atleast_1d(fitted.target_mean_)
    joined = scope.get_unique_variable_name("columns")
    names = [variable.full_name for variable in operator.inputs]
    container.add_node("Concat", names, joined, axis=1, name=joined)
    encoded = []
    for i, categories in enumerate(fitted.categories_):
        # One array per column, or for several classes, one per column and class.
        known = np.stack(fitted.encodings_[i * len(means) : (i + 1) * len(means)], axis=1)
        table = np.vstack([known, means]).astype(np.float32)
        index, cells, positions, chosen, weights = (
            scope.get_unique_variable_name(name)
            for name in ("index", "cells", "positions", "chosen", "weights")
        )
        container.add_initializer(index, TensorProto.INT64, [], [i])
        container.add_initializer(weights, TensorProto.FLOAT, table.shape, table.ravel())
        container.add_node("Gather", [joined, index], cells, axis=1, name=cells)
        container.add_node(
            "LabelEncoder",
            cells,
            positions,
            op_domain="ai.onnx.ml",
            op_version=2,
            name=positions,
            keys_strings=[str(name) for name in categories],
            values_int64s=list(range(len(categories))),
            default_int64=len(categories),
        )
        container.add_node("Gather", [weights, positions], chosen, axis=0, name=chosen)
        encoded.append(chosen)
    container.add_node(
        "Concat",
        encoded,
        operator.outputs[0].full_name,
        axis=1,
        name=scope.get_unique_operator_name("TargetEncoder"),
    )
