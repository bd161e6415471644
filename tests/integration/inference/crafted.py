"""Handmade ONNX models: versions of `price` that behave as no trained one would."""

import onnx
from onnx import TensorProto, helper

from tests.integration.inference.shelf import Shelf

COLUMNS = 2
ROWS = [[1.0, 1.0], [2.0, 1.0]]
SLOW_SIDE = 500
SLOW_STEPS = 6


def weighted(factor: float = 1.0) -> bytes:
    """Return a model that predicts `factor` × the sum of a row."""
    nodes = [
        helper.make_node("ReduceSum", ["features", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "factor"], ["variable"]),
    ]
    return _model(nodes, factor=factor)


def failing_below_zero() -> bytes:
    """Return a model that predicts the sum of a row, but nothing finite for negative values."""
    nodes = [
        helper.make_node("Sqrt", ["features"], ["roots"]),
        helper.make_node("Mul", ["roots", "roots"], ["again"]),
        helper.make_node("ReduceSum", ["again", "axes"], ["variable"], keepdims=1),
    ]
    return _model(nodes)


def slow(*, steps: int = SLOW_STEPS) -> bytes:
    """Return a model that predicts the sum of a row, after `steps` products of some ms each."""
    side = helper.make_tensor("side", TensorProto.INT64, [2], [SLOW_SIDE, SLOW_SIDE])
    nodes = [
        helper.make_node("ReduceSum", ["features", "axes"], ["sum"], keepdims=1),
        helper.make_node("ReduceMax", ["sum"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "nothing"], ["zero"]),
        helper.make_node("Expand", ["zero", "side"], ["product_0"]),
        *(
            helper.make_node("MatMul", [f"product_{i}", f"product_{i}"], [f"product_{i + 1}"])
            for i in range(steps)
        ),
        helper.make_node("ReduceMax", [f"product_{steps}"], ["waste"], keepdims=0),
        helper.make_node("Add", ["sum", "waste"], ["variable"]),
    ]
    return _model(nodes, side)


def publish(shelf: Shelf, content: bytes, *, factor: float = 1.0) -> str:
    """Publish a crafted model as a version of `price`, with matching recorded answers."""
    warm_up = {
        "rows": ROWS,
        "predictions": [factor * sum(row) for row in ROWS],
        "probabilities": None,
    }
    return shelf.publish(model="price", onnx_bytes=content, warm_up=warm_up)


def _model(nodes: list[onnx.NodeProto], *more: onnx.TensorProto, factor: float = 1.0) -> bytes:
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        *more,
    ]
    graph = helper.make_graph(
        nodes,
        "crafted",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
