"""The outputs of other tools' ONNX graphs, and how they become those that are served."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from registry.records import Signature
from trainer.modelling.graphs import add_constant

REDUCE_BY_INPUT = 13


@dataclass(frozen=True)
class Outputs:
    """The tensors of a graph that contain its predictions.

    Args:
        scores: a classifier's probabilities [N, classes].
        chance: a classifier's probability of the second of two classes, [N] or [N, 1].
        value: a regressor's values, [N] or [N, 1].
    """

    scores: str | None = None
    chance: str | None = None
    value: str | None = None


def finish_graph(
    model: onnx.ModelProto, found: Outputs, signature: Signature, *, opset: int
) -> None:
    """Let a graph return a classifier's labels [N] and probabilities, or values [N, 1]."""
    graph = model.graph
    del graph.output[:]
    if signature.classes is None:
        _add(
            graph,
            "Cast",
            [found.value or found.chance or found.scores or ""],
            "tollgate_float",
            to=TensorProto.FLOAT,
        )
        column = add_constant(model, "tollgate_column", np.array([-1, 1], dtype=np.int64))
        _add(graph, "Reshape", ["tollgate_float", column], "tollgate_value")
        graph.output.append(_info("tollgate_value", TensorProto.FLOAT, [None, 1]))
        return
    count = len(signature.classes)
    if found.scores is not None:
        _add(graph, "Cast", [found.scores], "tollgate_scores", to=TensorProto.FLOAT)
        shape = add_constant(model, "tollgate_shape", np.array([-1, count], dtype=np.int64))
        _add(graph, "Reshape", ["tollgate_scores", shape], "tollgate_probabilities")
    else:
        _add(
            graph,
            "Cast",
            [found.chance or found.value or ""],
            "tollgate_flat",
            to=TensorProto.FLOAT,
        )
        shape = add_constant(model, "tollgate_shape", np.array([-1, 1], dtype=np.int64))
        one = add_constant(model, "tollgate_one", np.array([1.0], dtype=np.float32))
        _add(graph, "Reshape", ["tollgate_flat", shape], "tollgate_second")
        _add(graph, "Sub", [one, "tollgate_second"], "tollgate_first")
        _add(
            graph, "Concat", ["tollgate_first", "tollgate_second"], "tollgate_probabilities", axis=1
        )
    is_text = isinstance(signature.classes[0], str)
    names = [label if is_text else int(label) for label in signature.classes]
    labels = add_constant(
        model, "tollgate_labels", np.array(names, dtype=object if is_text else np.int64)
    )
    _add(graph, "ArgMax", ["tollgate_probabilities"], "tollgate_best", axis=1, keepdims=0)
    _add(graph, "Gather", [labels, "tollgate_best"], "tollgate_label", axis=0)
    kind = TensorProto.STRING if is_text else TensorProto.INT64
    graph.output.extend(
        [
            _info("tollgate_label", kind, [None]),
            _info("tollgate_probabilities", TensorProto.FLOAT, [None, count]),
        ]
    )


def _add(graph: onnx.GraphProto, kind: str, inputs: list[str], output: str, **more: Any) -> None:
    graph.node.append(helper.make_node(kind, inputs, [output], **more))


def _info(name: str, kind: int, shape: list[int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
