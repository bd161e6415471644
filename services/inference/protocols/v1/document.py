"""The request and the answer of the v1 protocol, from bytes to arrays and back."""

from itertools import islice
from typing import Any, NamedTuple

import orjson

from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.inference.engine.runtime import Answer
from services.inference.models.inputs import Arrays
from services.inference.models.registry import LoadedModel
from services.inference.protocols.json_body import SLACK, load_object, refuse_duplicates
from services.inference.protocols.json_structure import JsonLimits
from services.inference.protocols.wire import Body, Encoded, Wire

ROUTE = "/v1/models/{model}:predict"

_MEMBERS = {"instances", "parameters"}
_PARAMETERS = {"probabilities"}
_HEADERS = ((b"content-type", b"application/json"),)


class Instances(NamedTuple):
    """A v1 request, decoded."""

    arrays: Arrays
    rows: int
    probabilities: bool

    def encode(self, model: LoadedModel, answer: Answer) -> Encoded:
        """`predictions`, and `probabilities` if they were wanted."""
        document: dict[str, Any] = {"predictions": answer.predictions}
        if answer.probabilities is not None:
            document["probabilities"] = answer.probabilities
        return Encoded(orjson.dumps(document), _HEADERS)


def decode(body: Body, model: LoadedModel, max_rows: int) -> Instances:
    """Decode a request by the model's signature.

    Raises:
        BodyInvalid: not JSON, ambiguous JSON, not of the protocol's shape, too many values, or
            instances that do not fit.
    """
    values = max_rows * len(model.inputs.columns) + SLACK
    document = load_object(body.content, JsonLimits(commas=values, containers=max_rows + SLACK))
    _refuse_unexpected(document, _MEMBERS, [])
    instances = document.get("instances")
    if type(instances) is not list or not instances:
        raise BodyInvalid([{"loc": ["instances"], "msg": "A list of at least one row is needed."}])
    if len(instances) > max_rows:
        message = f"At most {max_rows} rows fit in one request."
        raise BodyInvalid([{"loc": ["instances"], "msg": message}])
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    elif type(parameters) is not dict:
        raise BodyInvalid([{"loc": ["parameters"], "msg": "An object is needed."}])
    refuse_duplicates(body.content, document, [document, parameters, *instances])
    probabilities = _wants_probabilities(parameters, model)
    return Instances(model.inputs.decode(instances), len(instances), probabilities)


def _wants_probabilities(parameters: dict[str, Any], model: LoadedModel) -> bool:
    _refuse_unexpected(parameters, _PARAMETERS, ["parameters"])
    wanted = parameters.get("probabilities", False)
    if type(wanted) is not bool or (wanted and not model.is_classifier):
        message = "true or false is needed; only classifiers have probabilities."
        raise BodyInvalid([{"loc": ["parameters", "probabilities"], "msg": message}])
    return wanted


def _refuse_unexpected(given: dict[str, Any], known: set[str], where: list[str]) -> None:
    unexpected = islice((name for name in given if name not in known), MAX_FIELD_ERRORS)
    if errors := [{"loc": [*where, name[:100]], "msg": "No such member."} for name in unexpected]:
        raise BodyInvalid(errors)


WIRE = Wire(
    route=ROUTE,
    decode=decode,
    identity=lambda body: body.content,
    refusal=lambda problem: problem,
)
