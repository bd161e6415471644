"""A version of the sample model whose computation does not end for one kind of input."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from harness.samples import WINE
from harness.stores import PlatformStore

ENDLESS = [*WINE[:-1], 1e6]
"""Values that take hours to compute; no sample comes near the last one."""

_FEW_TRIPS = 20_000.0
"""Enough for a few milliseconds, so that it runs in a thread, as slow models do."""


def publish(home: Path) -> str:
    """Sign and publish it beside the sample model's own version; return its name."""
    platform_store = PlatformStore(home)
    live = platform_store.store.open_release(
        "wine", platform_store.live("wine"), platform_store.trusted
    )
    model = platform_store.store.read_file(live, "model.onnx")
    return platform_store.publish_copy("wine", {"model.onnx": _with_loop(model)})


def _with_loop(content: bytes) -> bytes:
    """Return the model preceded by a loop, with a million rounds for every 1 beyond 5,000."""
    model = onnx.load_from_string(content)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Identity", ["rows"], ["same_rows"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same_rows", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["features"], ["largest"], keepdims=0),
        helper.make_node("Sub", ["largest", "bound"], ["beyond"]),
        helper.make_node("Relu", ["beyond"], ["excess"]),
        helper.make_node("Mul", ["excess", "million"], ["many"]),
        helper.make_node("Add", ["many", "few"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "", "features"], ["looped"], body=body),
    ]
    constants = {"bound": 5_000.0, "million": 1e6, "few": _FEW_TRIPS}
    for name, value in constants.items():
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    [first] = [node for node in model.graph.node if "features" in node.input]
    first.input[:] = ["looped" if name == "features" else name for name in first.input]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
