"""One table of values, sent in every way that the protocols allow, gets one prediction."""

import math
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.inference.grpc_client import GrpcClient, Infer, values
from tests.integration.inference.test_binary_tensors import text
from tests.integration.inference.test_infer import output

NUMBERS = st.none() | st.floats(-1e6, 1e6, width=32) | st.integers(-(10**6), 10**6)
TEXTS = st.none() | st.sampled_from(["red", "green", "blue"]) | st.text(max_size=8)
EXAMPLES = settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Rows = list[tuple[Any, ...]]


@pytest.mark.costly
class TestPrediction:
    @EXAMPLES
    @given(rows=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=6))
    async def test_of_numbers_is_the_same_in_every_protocol_and_layout(
        self,
        http_and_grpc: httpx.AsyncClient,
        caller: GrpcClient,
        bearer: dict[str, str],
        rows: Rows,
    ) -> None:
        matrix = as_floats(rows)
        ways = [
            {"features": ("FP64", [len(rows), 3], [value for row in rows for value in row])},
            {"features": ("FP32", [len(rows), 3], [list(row) for row in rows])},
            {name: ("FP64", [len(rows)], list(column)) for name, column in by_column(rows)},
        ]
        tails = [
            {"features": ("FP32", [len(rows), 3], matrix.astype("<f4").tobytes())},
            {"features": ("FP64", [len(rows), 3], matrix.tobytes())},
            {
                name: ("FP64", [len(rows), 1], column.tobytes())
                for name, column in zip("abc", matrix.T.copy(), strict=True)
            },
        ]

        expected = await v1(http_and_grpc, bearer, "numbers", [list(row) for row in rows])

        for way in ways:
            assert await v2_json(http_and_grpc, bearer, "numbers", way) == expected
        for tail in tails:
            assert await v2_binary(http_and_grpc, bearer, "numbers", tail) == expected
            assert await grpc_raw(caller, "numbers", tail) == expected
        assert await grpc_typed(caller, "numbers", {"features": fp64(matrix)}) == expected
        columns = {name: fp64(matrix[:, at : at + 1]) for at, name in enumerate("abc")}
        assert await grpc_typed(caller, "numbers", columns) == expected

    @EXAMPLES
    @given(rows=st.lists(st.tuples(NUMBERS, TEXTS, st.booleans()), min_size=1, max_size=6))
    async def test_of_mixed_columns_is_the_same_in_every_protocol_and_layout(
        self,
        http_and_grpc: httpx.AsyncClient,
        caller: GrpcClient,
        bearer: dict[str, str],
        rows: Rows,
    ) -> None:
        sizes, colours, sold = (list(column) for column in zip(*rows, strict=True))
        count = len(rows)
        numbers = as_floats([(size,) for size in sizes])
        texts = [(colour or "").encode() for colour in colours]
        plain = {
            "size": ("FP64", [count, 1], sizes),
            "colour": ("BYTES", [count], colours),
            "sold": ("BOOL", [count, 1], sold),
        }
        raw = {
            "size": ("FP32", [count], numbers.astype("<f4").tobytes()),
            "colour": ("BYTES", [count, 1], text(*texts)),
            "sold": ("BOOL", [count, 1], bytes(sold)),
        }
        typed = {
            "size": fp64(numbers),
            "colour": ("BYTES", [count, 1], "bytes_contents", texts),
            "sold": ("BOOL", [count], "bool_contents", sold),
        }
        named = [dict(zip(plain, row, strict=True)) for row in rows]

        expected = await v1(http_and_grpc, bearer, "mixed", named)

        assert await v2_json(http_and_grpc, bearer, "mixed", plain) == expected
        assert await v2_binary(http_and_grpc, bearer, "mixed", raw) == expected
        assert await grpc_raw(caller, "mixed", raw) == expected
        assert await grpc_typed(caller, "mixed", typed) == expected


def by_column(rows: Rows) -> list[tuple[str, tuple[Any, ...]]]:
    return list(zip("abc", zip(*rows, strict=True), strict=True))


def as_floats(rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return rows of numbers with NaN for a missing value."""
    return np.array(
        [[math.nan if value is None else value for value in row] for row in rows], dtype=np.float64
    )


def fp64(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[str, list[int], str, list[Any]]:
    """Return a tensor with typed contents."""
    return "FP64", list(matrix.shape), "fp64_contents", matrix.ravel().tolist()


async def v1(
    client: httpx.AsyncClient, headers: dict[str, str], model: str, instances: list[Any]
) -> list[Any]:
    body = {"instances": instances, "parameters": {"probabilities": True}}
    answer = await client.post(f"/v1/models/{model}:predict", json=body, headers=headers)
    document = answer.json()
    flat = [share for shares in document["probabilities"] for share in shares]
    return [document["predictions"], flat]


async def v2_json(
    client: httpx.AsyncClient, headers: dict[str, str], model: str, tensors: dict[str, Any]
) -> list[Any]:
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "data": data}
        for name, (datatype, shape, data) in tensors.items()
    ]
    answer = await client.post(
        f"/v2/models/{model}/infer", json={"inputs": inputs}, headers=headers
    )
    return [output(answer, name)["data"] for name in ("predict", "predict_proba")]


async def v2_binary(
    client: httpx.AsyncClient, headers: dict[str, str], model: str, tensors: dict[str, Any]
) -> list[Any]:
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, (datatype, shape, data) in tensors.items()
    ]
    head = orjson.dumps({"inputs": inputs})
    tail = b"".join(data for _, _, data in tensors.values())
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = await client.post(
        f"/v2/models/{model}/infer", content=head + tail, headers=headers | length
    )
    return [output(answer, name)["data"] for name in ("predict", "predict_proba")]


async def grpc_raw(caller: GrpcClient, model: str, tensors: dict[str, Any]) -> list[Any]:
    request = Infer(model_name=model)
    for name, (datatype, shape, data) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    response, _ = await caller.infer(request)
    labels, shares = response.raw_output_contents
    if response.outputs[0].datatype == "BYTES":
        at, predictions = 0, []
        while at < len(labels):
            length = int.from_bytes(labels[at : at + 4], "little")
            predictions.append(labels[at + 4 : at + 4 + length].decode())
            at += 4 + length
    else:
        predictions = np.frombuffer(labels, "<i8").tolist()
    return [predictions, np.frombuffer(shares, "<f8").tolist()]


async def grpc_typed(caller: GrpcClient, model: str, tensors: dict[str, Any]) -> list[Any]:
    request = Infer(model_name=model)
    for name, (datatype, shape, field, data) in tensors.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        getattr(tensor.contents, field).extend(data)
    response, _ = await caller.infer(request)
    labels = [
        label.decode() if isinstance(label, bytes) else label
        for label in values(response, "predict")
    ]
    return [labels, values(response, "predict_proba")]
