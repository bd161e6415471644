"""The binary tensor extension of the Open Inference Protocol v2."""

import math
import struct
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW

NUMBERS = "/v2/models/numbers/infer"
MIXED = "/v2/models/mixed/infer"


async def post(
    client: httpx.AsyncClient,
    path: str,
    headers: dict[str, str],
    *,
    tail: bytes,
    length: str | None = None,
    **document: Any,
) -> httpx.Response:
    head = orjson.dumps(document)
    announced = {"Inference-Header-Content-Length": length or str(len(head))}
    return await client.post(path, content=head + tail, headers={**headers, **announced})


def tensor(name: str, datatype: str, shape: list[int], tail: bytes) -> dict[str, Any]:
    size = {"binary_data_size": len(tail)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": size}


def text(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


class TestInput:
    @pytest.mark.parametrize(("datatype", "dtype"), [("FP32", "<f4"), ("FP64", "<f8")])
    async def test_gets_the_same_predictions_as_json(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str, dtype: str
    ) -> None:
        tail = np.array([NUMBERS_ROW] * 2, dtype=dtype).tobytes()
        inputs = [tensor("features", datatype, [2, 3], tail)]
        plain = {"name": "features", "datatype": "FP32", "shape": [2, 3], "data": NUMBERS_ROW * 2}

        binary = await post(client, NUMBERS, bearer, tail=tail, inputs=inputs)
        as_json = await client.post(NUMBERS, json={"inputs": [plain]}, headers=bearer)

        assert binary.status_code == 200
        assert binary.json()["outputs"] == as_json.json()["outputs"]

    async def test_may_be_mixed_with_json_column_by_column(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        size, colour = np.array([5], dtype="<i8").tobytes(), text(b"red")
        inputs = [
            tensor("size", "INT64", [1, 1], size),
            {"name": "sold", "datatype": "BOOL", "shape": [1, 1], "data": [MIXED_ROW["sold"]]},
            tensor("colour", "BYTES", [1, 1], colour),
        ]

        binary = await post(client, MIXED, bearer, tail=size + colour, inputs=inputs)
        v1 = await client.post(
            "/v1/models/mixed:predict", json={"instances": [MIXED_ROW]}, headers=bearer
        )

        assert binary.json()["outputs"][0]["data"] == v1.json()["predictions"]

    async def test_a_repeat_with_a_different_tail_is_billed_again(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        keyed = {**bearer, "Idempotency-Key": "k"}
        tails = [np.array(row, dtype="<f4").tobytes() for row in ([1, 2, 3], [1, 2, 3], [1, 2, 4])]

        events = [
            (
                await post(
                    client,
                    NUMBERS,
                    keyed,
                    tail=tail,
                    id=str(number),
                    inputs=[tensor("features", "FP32", [1, 3], tail)],
                )
            ).headers["x-usage-event"]
            for number, tail in enumerate(tails)
        ]

        assert events[0] == events[1] != events[2]


class TestOutput:
    async def test_is_binary_if_requested(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        tensor = {"name": "features", "datatype": "FP64", "shape": [1, 3], "data": NUMBERS_ROW}
        outputs = [
            {"name": "predict_proba"},
            {"name": "predict", "parameters": {"binary_data": False}},
        ]

        answer = await client.post(
            NUMBERS,
            json={
                "inputs": [tensor],
                "outputs": outputs,
                "parameters": {"binary_data_output": True},
            },
            headers=bearer,
        )

        length = int(answer.headers["inference-header-content-length"])
        document = orjson.loads(answer.content[:length])
        shares = np.frombuffer(answer.content[length:], dtype="<f8")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert document["outputs"][0]["parameters"] == {"binary_data_size": 16}
        assert "data" not in document["outputs"][0]
        assert document["outputs"][1]["data"] == [1]
        assert math.isclose(shares.sum(), 1, abs_tol=1e-5)

    async def test_strings_are_preceded_by_their_length(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        kinds = {"size": "FP32", "colour": "BYTES", "sold": "BOOL"}
        inputs = [
            {"name": name, "datatype": kinds[name], "shape": [1, 1], "data": [value]}
            for name, value in MIXED_ROW.items()
        ]
        wanted = [{"name": "predict", "parameters": {"binary_data": True}}]

        answer = await client.post(
            MIXED, json={"inputs": inputs, "outputs": wanted}, headers=bearer
        )

        length = int(answer.headers["inference-header-content-length"])
        assert answer.content[length:] == text(b"big")


class TestRefusal:
    @pytest.mark.parametrize("values", [[1.0, math.inf, 0.0], [1.0, 1e308, 0.0]])
    async def test_of_numbers_that_are_not_finite(
        self, client: httpx.AsyncClient, bearer: dict[str, str], values: list[float]
    ) -> None:
        tail = np.array(values, dtype="<f8").tobytes()
        inputs = [tensor("features", "FP64", [1, 3], tail)]

        answer = await post(client, NUMBERS, bearer, tail=tail, inputs=inputs)

        assert answer.status_code == 400
        assert "features.b" in answer.json()["error"]

    @pytest.mark.parametrize(
        ("size", "tail"), [(24, b""), (24, bytes(23)), (24, bytes(25)), (23, bytes(23)), (-1, b"")]
    )
    async def test_of_sizes_that_do_not_match_the_body(
        self, client: httpx.AsyncClient, bearer: dict[str, str], size: int, tail: bytes
    ) -> None:
        inputs = [tensor("features", "FP64", [1, 3], tail)]
        inputs[0]["parameters"] = {"binary_data_size": size}

        answer = await post(client, NUMBERS, bearer, tail=tail, inputs=inputs)

        assert answer.status_code == 400

    @pytest.mark.parametrize(
        "tail",
        [b"", b"\x01", text(b"a", b"b"), b"\xff\xff\xff\xffred", text(b"\xff"), text(b"a")[:4]],
    )
    async def test_of_invalid_strings(
        self, client: httpx.AsyncClient, bearer: dict[str, str], tail: bytes
    ) -> None:
        inputs = [
            tensor("colour", "BYTES", [1, 1], tail),
            {"name": "size", "datatype": "FP32", "shape": [1, 1], "data": [1]},
            {"name": "sold", "datatype": "BOOL", "shape": [1, 1], "data": [True]},
        ]

        answer = await post(client, MIXED, bearer, tail=tail, inputs=inputs)

        assert answer.status_code == 400
        assert "inputs.colour" in answer.json()["error"]

    @pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999", "100000"])
    async def test_of_an_invalid_length(
        self, client: httpx.AsyncClient, bearer: dict[str, str], length: str
    ) -> None:
        answer = await post(client, NUMBERS, bearer, tail=b"", length=length, inputs=[])

        assert answer.status_code == 400
        assert answer.json().keys() == {"error"}
