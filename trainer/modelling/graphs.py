"""Edit ONNX graphs so that they take the inputs that `registry.features` describes."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from registry.features import MATRIX, column_input, is_one_matrix
from registry.records import Signature
from trainer.modelling.encoding import TEXTS

SPLIT_BY_INPUT = 13
"""From this opset on, Split takes the sizes as an input instead of an attribute."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max(
        (each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1
    )


def feed_columns(model: onnx.ModelProto, signature: Signature) -> None:
    """Feed a graph with one input [N, 1] per column, in signature order, from our inputs."""
    graph = model.graph
    names = [each.name for each in graph.input]
    del graph.input[:]
    graph.input.extend(new_inputs(signature))
    if is_one_matrix(signature.columns):
        prepend(model, split_columns(model, MATRIX, names))
    else:
        prepend(
            model,
            [
                helper.make_node("Identity", [column_input(i)], [name])
                for i, name in enumerate(names)
            ],
        )


def new_inputs(signature: Signature) -> list[onnx.ValueInfoProto]:
    """Return our inputs for a signature."""
    if is_one_matrix(signature.columns):
        shape = [None, len(signature.columns)]
        return [helper.make_tensor_value_info(MATRIX, TensorProto.FLOAT, shape)]
    return [
        helper.make_tensor_value_info(
            column_input(i),
            TensorProto.STRING if column.kind in TEXTS else TensorProto.FLOAT,
            [None, 1],
        )
        for i, column in enumerate(signature.columns)
    ]


def split_columns(model: onnx.ModelProto, matrix: str, names: list[str]) -> list[onnx.NodeProto]:
    """Return the nodes that split a matrix [N, n] into n columns [N, 1]."""
    if len(names) == 1:
        return [helper.make_node("Identity", [matrix], names)]
    if opset_of(model) < SPLIT_BY_INPUT:
        return [helper.make_node("Split", [matrix], names, axis=1, split=[1] * len(names))]
    sizes = add_constant(model, "tollgate_ones", np.ones(len(names), dtype=np.int64))
    return [helper.make_node("Split", [matrix, sizes], names, axis=1)]


def add_constant(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    """Add an initializer to a graph and return its name."""
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def prepend(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes before all others: a graph's nodes are in the order of computation."""
    before = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *before])
