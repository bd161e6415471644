"""Decode requests and encode responses of the Open Inference Protocol v2.

A body is JSON, or JSON followed by raw tensor bytes (the binary tensor extension). In the second
case the header `Inference-Header-Content-Length` is the length of the JSON. If it is 0, the whole
body is the only input of a model with one input, and all outputs are returned as raw bytes.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse
from services.common.errors import BodyInvalid
from services.inference.api.codec import Body, EncodedResponse, ProtocolCodec
from services.inference.api.json_body import SLACK, open_object, refuse_duplicates
from services.inference.api.json_structure import JsonLimits, scan
from services.inference.api.v2 import tensors
from services.inference.api.v2.tensors import RawTensor
from services.inference.metering.events import new_id
from services.inference.models.table import LoadedModel

ROUTE = "/v2/models/{model}/infer"
JSON_LENGTH_HEADER = b"inference-header-content-length"


class Output(NamedTuple):
    """A requested output, as JSON or as bytes after the JSON."""

    name: str
    binary: bool


class V2Request(NamedTuple):
    """A decoded v2 request."""

    arrays: Arrays
    rows: int
    id: str
    outputs: list[Output]

    def suits(self, model: LoadedModel) -> bool:
        """Return True: every version can answer it."""
        return True

    @property
    def explains(self) -> bool:
        """Return False: only v1 explains."""
        return False

    @property
    def probabilities(self) -> bool:
        return any(output.name == "predict_proba" for output in self.outputs)

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode the requested outputs, in the order of the request."""
        described: list[dict[str, Any]] = []
        tail: list[bytes] = []
        for output in self.outputs:
            name, datatype, shape, values = tensors.output(
                output.name, response, model.manifest.signature
            )
            entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
            if output.binary:
                tail.append(tensors.to_bytes(values, datatype))
                entry["parameters"] = {"binary_data_size": len(tail[-1])}
            else:
                entry["data"] = values
            described.append(entry)
        document = {
            "model_name": model.manifest.model,
            "model_version": model.manifest.version,
            "id": self.id,
            "outputs": described,
        }
        head = orjson.dumps(document)
        if not tail:
            return EncodedResponse(head, ((b"content-type", b"application/json"),))
        length = b"%d" % len(head)
        headers = ((b"content-type", b"application/octet-stream"), (JSON_LENGTH_HEADER, length))
        return EncodedResponse(b"".join([head, *tail]), headers)


def decode(body: Body, model: LoadedModel, max_rows: int) -> V2Request:
    """Decode a request according to the model's signature.

    Raises:
        BodyInvalid: the body is not JSON, has duplicate members, violates the protocol or has too
            many values, or a tensor does not match the signature. Lists up to 50 inputs.
    """
    if body.json_length == 0:
        return _read_raw(body.content, model, max_rows)
    head, tail = _split(body)
    # Each value may be in a list of its own.
    values = max_rows * len(model.inputs.columns) + SLACK
    most = len(model.inputs.columns) + SLACK
    limits = JsonLimits(commas=values, containers=values, members=most)
    with open_object(head, limits) as document:
        return _read(document, head, tail, model, max_rows)


def _read(
    document: dict[str, Any], head: bytes, tail: bytes, model: LoadedModel, max_rows: int
) -> V2Request:
    parameters = _parameters(document, "parameters")
    most = len(model.inputs.columns) + SLACK
    inputs, outputs = _objects(document, "inputs", most), _objects(document, "outputs", most)
    nested = [value.get("parameters") for value in (*inputs, *outputs)]
    refuse_duplicates(head, document, [document, parameters, *inputs, *outputs, *nested])
    id = document.get("id")
    if id is None:
        id = new_id()  # clients expect one in every response
    elif type(id) is not str:
        raise BodyInvalid([{"loc": ["id"], "msg": "Must be a string."}])
    wanted = _wanted(outputs, parameters, model)
    arrays, rows = tensors.decode(_given(inputs, tail), model.inputs, max_rows=max_rows)
    return V2Request(arrays, rows, id, wanted)


def _read_raw(content: bytes, model: LoadedModel, max_rows: int) -> V2Request:
    """Read a body that is nothing but the elements of the model's only input."""
    given = tensors.whole_input(content, model.manifest.signature)
    arrays, rows = tensors.decode([given], model.inputs, max_rows=max_rows)
    outputs = [Output(name, binary=True) for name in output_names(model)]
    return V2Request(arrays, rows, new_id(), outputs)


def identity(body: Body) -> bytes:
    """Return the raw bytes of `parameters`, `inputs`, `outputs` and the binary tail, in that order.

    A new `id` or another order of the members does not make it a different request.

    Args:
        body: a body that `decode` accepted.
    """
    if body.json_length == 0:
        return body.content
    head, tail = _split(body)
    members = scan(head).members()
    wanted = (members.get(name, b"") for name in ("parameters", "inputs", "outputs"))
    return b"".join([*wanted, tail])


def encode_error(problem: Response) -> Response:
    """Turn a problem+json response into `{"error": …}`, with 400 in place of 422."""
    document = orjson.loads(problem.body)
    status = 400 if problem.status_code == 422 else problem.status_code
    response = Response(
        orjson.dumps({"error": error_text(document["detail"], document.get("errors", []))}),
        status_code=status,
        media_type="application/json",
    )
    for name, value in problem.headers.items():
        if name not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def error_text(detail: str, errors: Sequence[Mapping[str, Any]]) -> str:
    """Return an error in one text: what is wrong with each field, or its `detail`."""
    sentences = [
        f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors
    ]
    return " ".join(sentences) or detail


def output_names(model: LoadedModel) -> list[str]:
    """Return the names of a model's outputs."""
    return ["predict", "predict_proba"] if model.is_classifier else ["predict"]


def _split(body: Body) -> tuple[bytes, bytes]:
    """Split a body into its JSON and the binary tail."""
    if body.json_length is None:
        return body.content, b""
    if body.json_length > len(body.content):
        message = "Inference-Header-Content-Length exceeds the length of the body."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return body.content[: body.json_length], body.content[body.json_length :]


def _parameters(holder: dict[str, Any], *where: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BodyInvalid([{"loc": list(where), "msg": "Must be an object."}])
    return parameters


def _objects(document: dict[str, Any], member: str, most: int) -> list[dict[str, Any]]:
    value = document.get(member)
    if value is None:
        return []
    if type(value) is list and len(value) > most:
        raise BodyInvalid([{"loc": [member], "msg": "Has too many objects."}])
    if type(value) is not list or not all(type(entry) is dict for entry in value):
        raise BodyInvalid([{"loc": [member], "msg": "Must be a list of objects."}])
    return value


def _wanted(
    outputs: list[dict[str, Any]], parameters: dict[str, Any], model: LoadedModel
) -> list[Output]:
    """Return the requested outputs; by default all of them."""
    names = output_names(model)
    binary = _flag(parameters, "binary_data_output", ["parameters"], default=False)
    if not outputs:
        return [Output(name, binary) for name in names]
    wanted: dict[str, Output] = {}
    for number, entry in enumerate(outputs):
        name = require_output(entry.get("name"), number, names, wanted)
        own = _parameters(entry, "outputs", name, "parameters")
        wanted[name] = Output(name, _flag(own, "binary_data", ["outputs", name], default=binary))
    return list(wanted.values())


def require_output(name: Any, number: int, names: list[str], wanted: Container[str]) -> str:
    """Return the name of a requested output.

    Args:
        number: its place in the request, from 0.
        names: the model's outputs.
        wanted: what has been requested already.

    Raises:
        BodyInvalid: the model has no such output, or it is requested twice.
    """
    if type(name) is not str or name not in names or name in wanted:
        message = f"Must be {' or '.join(names)}, each at most once."
        raise BodyInvalid([{"loc": ["outputs", number, "name"], "msg": message}])
    return name


def _flag(parameters: dict[str, Any], name: str, where: list[str], *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise BodyInvalid([{"loc": [*where, name], "msg": "Must be true or false."}])
    return value


def _given(inputs: list[dict[str, Any]], tail: bytes) -> list[RawTensor]:
    """Return the inputs, each binary one with its part of the tail.

    Raises:
        BodyInvalid: a member of an input is missing or has the wrong type, or the sizes do not add
            up to the tail.
    """
    given: list[RawTensor] = []
    view, at = memoryview(tail), 0
    for number, entry in enumerate(inputs):
        size = _check_input(entry, number)
        part = None
        if size is not None:
            part = view[at : at + size]
            at += size
        given.append(
            RawTensor(entry["name"], entry["datatype"], entry["shape"], entry.get("data"), part)
        )
    if at != len(tail):
        message = f"The inputs declare {at} bytes after the JSON; the body has {len(tail)}."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return given


def _check_input(entry: dict[str, Any], number: int) -> int | None:
    """Check the types of an input's members; return its size in the tail, None if it is JSON."""
    where: list[Any] = ["inputs", number]
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if type(name) is not str:
        raise BodyInvalid([{"loc": [*where, "name"], "msg": "Must be a string."}])
    where = ["inputs", name[:100]]
    if type(datatype) is not str:
        raise BodyInvalid([{"loc": [*where, "datatype"], "msg": "Must be a string."}])
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise BodyInvalid(
            [{"loc": [*where, "shape"], "msg": "Must be a list of non-negative integers."}]
        )
    size: int | None = _parameters(entry, *where, "parameters").get("binary_data_size")
    data = entry.get("data")
    if size is None and type(data) is not list:
        raise BodyInvalid([{"loc": [*where, "data"], "msg": "Must be a list of values."}])
    if size is not None and (type(size) is not int or size < 0 or data is not None):
        message = "Must be a number of bytes, without `data` in the JSON."
        raise BodyInvalid([{"loc": [*where, "binary_data_size"], "msg": message}])
    return size


CODEC = ProtocolCodec(route=ROUTE, decode=decode, identity=identity, encode_error=encode_error)
