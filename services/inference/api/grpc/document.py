"""Decode the messages of the Open Inference Protocol over gRPC, and encode the answers.

Tensors come as typed `contents` or as raw bytes (`raw_input_contents`). A request with raw inputs
gets raw outputs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse
from services.common.errors import BodyInvalid
from services.inference.api.codec import Body, EncodedResponse, ProtocolCodec
from services.inference.api.grpc.messages.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from services.inference.api.grpc.messages.outline_pb2 import ModelInferOutline
from services.inference.api.json_body import SLACK, WHOLE_BYTES
from services.inference.api.targets import Target
from services.inference.api.v2 import document as rest
from services.inference.api.v2 import tensors
from services.inference.api.v2.tensors import RawTensor
from services.inference.metering.events import new_id
from services.inference.models.table import LoadedModel

SERVICE = "inference.GRPCInferenceService"
PATH = f"/{SERVICE}/ModelInfer"

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` for each datatype; FP16 can only be raw."""


class GrpcRequest(NamedTuple):
    """A decoded request; `raw` is whether its tensors were raw bytes."""

    arrays: Arrays
    rows: int
    id: str
    outputs: list[str]
    raw: bool

    def suits(self, model: LoadedModel) -> bool:
        """Return True: every version can answer it."""
        return True

    @property
    def explains(self) -> bool:
        """Return False: only v1 explains."""
        return False

    @property
    def probabilities(self) -> bool:
        return "predict_proba" in self.outputs

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode the requested outputs, in the order of the request."""
        manifest = model.manifest
        message = ModelInferResponse(
            model_name=manifest.model, model_version=manifest.version, id=self.id
        )
        for name in self.outputs:
            output = tensors.output(name, response, manifest.signature)
            described = message.outputs.add(name=name, datatype=output.datatype, shape=output.shape)
            if self.raw:
                content = tensors.to_bytes(output.values, output.datatype)
                message.raw_output_contents.append(content)
            else:
                described.contents.CopyFrom(_contents(output.values, output.datatype))
        return EncodedResponse(message.SerializeToString(), ())


def find_target(content: bytes) -> Target:
    """Return what a request addresses, without parsing its tensors.

    Raises:
        BodyInvalid: it is not a message of the protocol.
    """
    outline = _parse_outline(content)
    return Target(CODEC, outline.model_name, outline.model_version or None)


def decode(body: Body, model: LoadedModel, max_rows: int) -> GrpcRequest:
    """Decode a request according to the model's signature.

    Raises:
        BodyInvalid: it is not a message of the protocol, or a tensor does not match the signature.
    """
    content = body.content
    if len(content) > WHOLE_BYTES:
        _check_size(_parse_outline(content), len(model.inputs.columns) + SLACK)
    message = _parse(content)
    names = rest.output_names(model)
    wanted: list[str] = []
    for number, output in enumerate(message.outputs):
        wanted.append(rest.require_output(output.name, number, names, wanted))
    raw = bool(message.raw_input_contents)
    given = _raw(message) if raw else [_typed(tensor) for tensor in message.inputs]
    arrays, rows = tensors.decode(given, model.inputs, max_rows=max_rows)
    return GrpcRequest(arrays, rows, message.id or new_id(), wanted or names, raw)


def identity(body: Body) -> bytes:
    """Return the bytes that identify a request under its idempotency key: all of it but the `id`.

    The order of the parameters does not matter.
    """
    message = _parse(body.content)
    message.ClearField("id")
    return message.SerializeToString(deterministic=True)


def _parse(content: bytes) -> ModelInferRequest:
    try:
        return ModelInferRequest.FromString(content)
    except DecodeError as error:
        raise _malformed() from error


def _parse_outline(content: bytes) -> ModelInferOutline:
    try:
        return ModelInferOutline.FromString(content)
    except DecodeError as error:
        raise _malformed() from error


def _malformed() -> BodyInvalid:
    message = "The message is not a valid ModelInferRequest."
    return BodyInvalid([{"loc": ["body"], "msg": message}])


def _check_size(outline: ModelInferOutline, most: int) -> None:
    """Check the number of tensors: an empty one takes two bytes here but many once it is parsed."""
    for member, given in (("inputs", outline.inputs), ("outputs", outline.outputs)):
        if len(given) > most:
            raise BodyInvalid([{"loc": [member], "msg": "Has too many tensors."}])


def _raw(message: ModelInferRequest) -> list[RawTensor]:
    parts = message.raw_input_contents
    if len(parts) != len(message.inputs) or any(
        each.HasField("contents") for each in message.inputs
    ):
        text = "Must have one element per input, and no input may have `contents`."
        raise BodyInvalid([{"loc": ["raw_input_contents"], "msg": text}])
    return [
        RawTensor(tensor.name, tensor.datatype, tensor.shape, None, memoryview(part))
        for tensor, part in zip(message.inputs, parts, strict=True)
    ]


def _typed(tensor: ModelInferRequest.InferInputTensor) -> RawTensor:
    """Return a tensor with typed contents as a raw one, so that both are read alike."""
    datatype = tensor.datatype
    field = _CONTENTS.get(datatype)
    values: Any = getattr(tensor.contents, field) if field else []
    if datatype == "BYTES":
        content = tensors.join_texts(values)
    else:
        content = _pack(values, datatype, tensor.name)
    return RawTensor(tensor.name, datatype, tensor.shape, None, memoryview(content))


def _pack(values: Any, datatype: str, name: str) -> bytes:
    dtype = tensors.NUMPY.get(datatype, np.dtype("u1"))
    try:
        return np.fromiter(values, dtype, count=len(values)).tobytes()
    except OverflowError as error:
        message = f"Each number must be within the range of {datatype}."
        raise BodyInvalid([{"loc": ["inputs", name[:100]], "msg": message}]) from error


def _contents(values: list[Any], datatype: str) -> InferTensorContents:
    if datatype == "BYTES":
        return InferTensorContents(bytes_contents=[str(value).encode() for value in values])
    contents = InferTensorContents()
    getattr(contents, _CONTENTS[datatype]).extend(values)
    return contents


CODEC = ProtocolCodec(route=PATH, decode=decode, identity=identity, encode_error=rest.encode_error)
