"""The request and the answer of the Open Inference Protocol v2, from bytes to arrays and back.

JSON, or JSON followed by the raw bytes of tensors (the protocol's binary tensor extension): then
the header `Inference-Header-Content-Length` says where the JSON ends.
"""

from itertools import chain
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from services.common.errors import BodyInvalid
from services.inference.engine.runtime import Answer
from services.inference.models.inputs import Arrays
from services.inference.models.registry import LoadedModel
from services.inference.protocols.json_body import SLACK, load_object, refuse_duplicates
from services.inference.protocols.json_structure import JsonLimits, scan
from services.inference.protocols.v2 import tensors
from services.inference.protocols.v2.tensors import Given
from services.inference.protocols.wire import Body, Encoded, Wire

ROUTE = "/v2/models/{model}/infer"
JSON_LENGTH_HEADER = b"inference-header-content-length"


class Output(NamedTuple):
    """An output that was asked for, as JSON or as bytes after it."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A v2 request, decoded."""

    arrays: Arrays
    rows: int
    id: str | None
    outputs: list[Output]

    @property
    def probabilities(self) -> bool:
        return any(output.name == "predict_proba" for output in self.outputs)

    def encode(self, model: LoadedModel, answer: Answer) -> Encoded:
        """The outputs that were asked for, in the order asked."""
        described: list[dict[str, Any]] = []
        tail: list[bytes] = []
        for output in self.outputs:
            values: list[Any] = answer.predictions
            shape = [self.rows]
            datatype = tensors.datatype_of_predictions(model.manifest.signature)
            if output.name == "predict_proba":
                shares = answer.probabilities or []
                values, datatype = list(chain.from_iterable(shares)), "FP64"
                shape = [self.rows, len(shares[0])]
            entry: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
            if output.binary:
                tail.append(tensors.to_bytes(values, datatype))
                entry["parameters"] = {"binary_data_size": len(tail[-1])}
            else:
                entry["data"] = values
            described.append(entry)
        document = {
            "model_name": model.manifest.model,
            "model_version": model.manifest.version,
            **({} if self.id is None else {"id": self.id}),
            "outputs": described,
        }
        head = orjson.dumps(document)
        if not tail:
            return Encoded(head, ((b"content-type", b"application/json"),))
        length = b"%d" % len(head)
        headers = ((b"content-type", b"application/octet-stream"), (JSON_LENGTH_HEADER, length))
        return Encoded(b"".join([head, *tail]), headers)


def decode(body: Body, model: LoadedModel, max_rows: int) -> Inference:
    """Decode a request by the model's signature.

    Raises:
        BodyInvalid: not JSON, ambiguous JSON, not of the protocol's shape, too many values, or
            tensors that do not fit; every offending input is named, at most 50.
    """
    head, tail = _split(body)
    # Each value may be a row of its own.
    values = max_rows * len(model.inputs.columns) + SLACK
    document = load_object(head, JsonLimits(commas=values, containers=values))
    parameters = _parameters(document, "parameters")
    inputs, outputs = _objects(document, "inputs"), _objects(document, "outputs")
    nested = [value.get("parameters") for value in (*inputs, *outputs)]
    refuse_duplicates(head, document, [document, parameters, *inputs, *outputs, *nested])
    id = document.get("id")
    if id is not None and type(id) is not str:
        raise BodyInvalid([{"loc": ["id"], "msg": "A string is needed."}])
    wanted = _wanted(outputs, parameters, model)
    given = [_given(entry, number) for number, entry in enumerate(inputs)]
    arrays, rows = tensors.decode(given, tail, model.inputs, max_rows=max_rows)
    return Inference(arrays, rows, id, wanted)


def identity(body: Body) -> bytes:
    """The raw bytes of `parameters`, `inputs` and `outputs`, in that order, and the binary tail.

    A client's fresh `id`, or another order of the members, makes no other request.

    Args:
        body: one that `decode` took.
    """
    head, tail = _split(body)
    members = scan(head).members()
    wanted = (members.get(name, b"") for name in ("parameters", "inputs", "outputs"))
    return b"".join([*wanted, tail])


def refusal(problem: Response) -> Response:
    """A problem+json answer as `{"error": …}` with the same status; 400 where v1 has 422."""
    document = orjson.loads(problem.body)
    sentences = [
        f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
        for error in document.get("errors", [])
    ]
    status = 400 if problem.status_code == 422 else problem.status_code
    answer = Response(
        orjson.dumps({"error": " ".join(sentences) or document["detail"]}),
        status_code=status,
        media_type="application/json",
    )
    for name, value in problem.headers.items():
        if name not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer


def _split(body: Body) -> tuple[bytes, bytes]:
    """The JSON, and what follows it."""
    if body.json_length is None:
        return body.content, b""
    if body.json_length > len(body.content):
        message = "Inference-Header-Content-Length is more than the body has."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return body.content[: body.json_length], body.content[body.json_length :]


def _parameters(holder: dict[str, Any], *where: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BodyInvalid([{"loc": list(where), "msg": "An object is needed."}])
    return parameters


def _objects(document: dict[str, Any], member: str) -> list[dict[str, Any]]:
    value = document.get(member)
    if value is None:
        return []
    if type(value) is not list or not all(type(entry) is dict for entry in value):
        raise BodyInvalid([{"loc": [member], "msg": "A list of objects is needed."}])
    return value


def _wanted(
    outputs: list[dict[str, Any]], parameters: dict[str, Any], model: LoadedModel
) -> list[Output]:
    """The outputs to answer; all, if none is named."""
    names = ["predict", "predict_proba"] if model.is_classifier else ["predict"]
    binary = _flag(parameters, "binary_data_output", ["parameters"], default=False)
    if not outputs:
        return [Output(name, binary) for name in names]
    wanted: dict[str, Output] = {}
    for number, entry in enumerate(outputs):
        name = entry.get("name")
        if type(name) is not str or name not in names or name in wanted:
            message = f"Each of {' and '.join(names)} may be asked for once."
            raise BodyInvalid([{"loc": ["outputs", number, "name"], "msg": message}])
        own = _parameters(entry, "outputs", name, "parameters")
        wanted[name] = Output(name, _flag(own, "binary_data", ["outputs", name], default=binary))
    return list(wanted.values())


def _flag(parameters: dict[str, Any], name: str, where: list[str], *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise BodyInvalid([{"loc": [*where, name], "msg": "true or false is needed."}])
    return value


def _given(entry: dict[str, Any], number: int) -> Given:
    """An input as it was sent, its members of the right types.

    Raises:
        BodyInvalid: a member is missing or is something else.
    """
    where: list[Any] = ["inputs", number]
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if type(name) is not str:
        raise BodyInvalid([{"loc": [*where, "name"], "msg": "A string is needed."}])
    where = ["inputs", name[:100]]
    if type(datatype) is not str:
        raise BodyInvalid([{"loc": [*where, "datatype"], "msg": "A string is needed."}])
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise BodyInvalid([{"loc": [*where, "shape"], "msg": "A list of sizes is needed."}])
    size = _parameters(entry, *where, "parameters").get("binary_data_size")
    data = entry.get("data")
    if size is None and type(data) is not list:
        raise BodyInvalid([{"loc": [*where, "data"], "msg": "A list of values is needed."}])
    if size is not None and (type(size) is not int or size < 0 or data is not None):
        message = "A number of bytes is needed, and no data in the JSON."
        raise BodyInvalid([{"loc": [*where, "binary_data_size"], "msg": message}])
    return Given(name, datatype, shape, data, size)


WIRE = Wire(route=ROUTE, decode=decode, identity=identity, refusal=refusal)
