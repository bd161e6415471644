"""A client of the Open Inference Protocol over gRPC, and tensors for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from services.inference.api.grpc.document import SERVICE
from services.inference.api.grpc.messages import open_inference_pb2 as messages
from tests.integration.inference.samples import MIXED_ROW

Infer = messages.ModelInferRequest


@dataclass(frozen=True)
class GrpcClient:
    """Calls a server, with a token unless it is empty."""

    channel: grpc.aio.Channel
    token: str = ""

    async def call(
        self, name: str, message: Message | bytes, **metadata: str
    ) -> tuple[Any, dict[str, str]]:
        """Return the response and the trailing metadata of a call.

        Raises:
            grpc.aio.AioRpcError: the server refused it.
        """
        headers = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        if self.token:
            headers.append(("authorization", f"Bearer {self.token}"))
        answer = getattr(messages, f"{name}Response")
        content = message if isinstance(message, bytes) else message.SerializeToString()
        send: Any = self.channel.unary_unary(
            f"/{SERVICE}/{name}", response_deserializer=answer.FromString
        )
        call = send(content, metadata=headers, timeout=30)
        response = await call
        return response, receipt(await call.trailing_metadata())

    async def infer(self, message: Message | bytes, **metadata: str) -> tuple[Any, dict[str, str]]:
        """Return the response and the trailing metadata of a prediction."""
        return await self.call("ModelInfer", message, **metadata)

    async def refused(self, message: Message | bytes, **metadata: str) -> grpc.aio.AioRpcError:
        """Return the error of a prediction that must be refused."""
        try:
            await self.infer(message, **metadata)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the server answered")


def receipt(metadata: Any) -> dict[str, str]:
    """Return metadata as a dictionary."""
    return {str(name): str(value) for name, value in metadata or ()}


def fp32(*rows: Sequence[float], model: str = "numbers", **changes: Any) -> Infer:
    """Return a request with one matrix of typed contents."""
    request = Infer(model_name=model, **changes)
    flat = [value for row in rows for value in row]
    tensor = request.inputs.add(name="features", datatype="FP32", shape=[len(rows), len(rows[0])])
    tensor.contents.fp32_contents.extend(flat)
    return request


def values(response: Any, name: str) -> list[Any]:
    """Return the typed contents of an output."""
    [output] = [each for each in response.outputs if each.name == name]
    [(_, contents)] = output.contents.ListFields()
    return list(contents)


def mixed_row(**contents: Any) -> Infer:
    """Return a request with one row of the model `mixed` as typed contents."""
    request = Infer(model_name="mixed")
    for name, datatype, field in (
        ("size", "FP32", "fp32_contents"),
        ("colour", "BYTES", "bytes_contents"),
        ("sold", "BOOL", "bool_contents"),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        value = contents.get(name, MIXED_ROW[name])
        getattr(tensor.contents, field).append(value.encode() if datatype == "BYTES" else value)
    return request
