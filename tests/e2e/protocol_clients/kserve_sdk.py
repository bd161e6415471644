"""Call a server with KServe's client: `python kserve_sdk.py rest|grpc ADDRESS` prints what it got.

The token and the rows are JSON on the standard input.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)


def new_request(rows: list[Any], *, binary: bool) -> InferRequest:
    matrix = np.array(rows, dtype=np.float32)
    features = InferInput("features", list(matrix.shape), "FP32")
    features.set_data_from_numpy(matrix, binary_data=binary)
    return InferRequest(model_name="wine", infer_inputs=[features], request_id="mine")


async def over_rest(address: str, rows: list[Any], headers: dict[str, str]) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))

    async def infer(request: InferRequest) -> Any:
        return await client.infer(address, request, model_name="wine", headers=dict(headers))

    plain = await v1.infer(address, {"instances": rows}, model_name="wine", headers=dict(headers))
    return await predictions(infer, rows) | {
        "live": await client.is_server_live(address),
        "ready": await client.is_server_ready(address)
        and await client.is_model_ready(address, "wine", headers=headers)
        and await v1.is_model_ready(address, "wine", headers=headers),
        "v1": plain["predictions"],
    }


async def over_grpc(address: str, rows: list[Any], headers: dict[str, str]) -> dict[str, Any]:
    client = InferenceGRPCClient(address)
    metadata = tuple(headers.items())

    async def infer(request: InferRequest) -> Any:
        return await client.infer(request, headers=metadata)

    return await predictions(infer, rows) | {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready()
        and await client.is_model_ready("wine", headers=metadata),
    }


async def predictions(
    infer: Callable[[InferRequest], Awaitable[Any]], rows: list[Any]
) -> dict[str, Any]:
    """Predict with raw bytes and without, and once with a wrong shape."""
    answers = [await infer(new_request(rows, binary=binary)) for binary in (True, False)]
    try:
        await infer(new_request([[1.0]], binary=False))
        error = ""
    except Exception as raised:
        error = str(raised)
    return {
        "predictions": [answer.outputs[0].as_numpy().tolist() for answer in answers],
        "ids": [answer.id for answer in answers],
        "error": error,
    }


def main() -> None:
    protocol, address = sys.argv[1:]
    given = json.load(sys.stdin)
    headers = {"authorization": f"Bearer {given['token']}"}
    call = over_rest if protocol == "rest" else over_grpc
    json.dump(asyncio.run(call(address, given["rows"], headers)), sys.stdout)


main()
