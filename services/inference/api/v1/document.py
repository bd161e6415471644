"""Decode requests and encode responses of the v1 protocol; a request is JSON or CSV."""

from itertools import islice
from typing import Any, NamedTuple

import orjson

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse
from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.inference.api.codec import Body, EncodedResponse, ProtocolCodec
from services.inference.api.json_body import (
    SLACK,
    WHOLE_BYTES,
    has_as_many_colons,
    load_object,
    open_object,
    refuse_duplicates,
)
from services.inference.api.json_structure import JsonLimits
from services.inference.api.v1 import csv_body
from services.inference.models.table import LoadedModel

ROUTE = "/v1/models/{model}:predict"

_MEMBERS = {"instances", "parameters", "signature_name"}
"""TensorFlow Serving's clients send `signature_name`; a model has one signature."""
_PARAMETERS = {"probabilities"}
_HEADERS = ((b"content-type", b"application/json"),)


class V1Request(NamedTuple):
    """A decoded v1 request."""

    arrays: Arrays
    rows: int
    probabilities: bool

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode `predictions`, and `probabilities` if they were requested."""
        document: dict[str, Any] = {"predictions": response.predictions}
        if response.probabilities is not None:
            document["probabilities"] = response.probabilities
        return EncodedResponse(orjson.dumps(document), _HEADERS)


def decode(body: Body, model: LoadedModel, max_rows: int) -> V1Request:
    """Decode a request according to the model's signature.

    A CSV body has no parameters.

    Raises:
        BodyInvalid: the body is neither JSON nor CSV, has duplicate members, violates the protocol
            or has too many values, or an instance does not match the signature.
    """
    if body.is_csv:
        rows = csv_body.read_instances(body.content, model.inputs, max_rows=max_rows)
        return V1Request(model.inputs.decode(rows), len(rows), probabilities=False)
    if len(body.content) <= WHOLE_BYTES:
        return _read(load_object(body.content), body.content, model, max_rows)
    columns = len(model.inputs.columns)
    limits = JsonLimits(
        commas=max_rows * columns + SLACK, containers=max_rows + SLACK, members=columns + SLACK
    )
    with open_object(body.content, limits) as document:
        return _read(document, body.content, model, max_rows)


def _read(document: dict[str, Any], content: bytes, model: LoadedModel, max_rows: int) -> V1Request:
    if not document.keys() <= _MEMBERS:
        _refuse_unexpected(document, _MEMBERS, [])
    instances = document.get("instances")
    if type(instances) is not list or not instances:
        raise BodyInvalid([{"loc": ["instances"], "msg": "Must be a non-empty list of rows."}])
    if len(instances) > max_rows:
        message = f"Too many rows; the maximum is {max_rows}."
        raise BodyInvalid([{"loc": ["instances"], "msg": message}])
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    elif type(parameters) is not dict:
        raise BodyInvalid([{"loc": ["parameters"], "msg": "Must be an object."}])
    if not has_as_many_colons(content, len(document)):
        refuse_duplicates(content, document, [document, parameters, *instances])
    probabilities = bool(parameters) and _wants_probabilities(parameters, model)
    return V1Request(model.inputs.decode(instances), len(instances), probabilities)


def _wants_probabilities(parameters: dict[str, Any], model: LoadedModel) -> bool:
    _refuse_unexpected(parameters, _PARAMETERS, ["parameters"])
    wanted = parameters.get("probabilities", False)
    if type(wanted) is not bool or (wanted and not model.is_classifier):
        message = "Must be true or false; only classifiers have probabilities."
        raise BodyInvalid([{"loc": ["parameters", "probabilities"], "msg": message}])
    return wanted


def _refuse_unexpected(given: dict[str, Any], known: set[str], where: list[str]) -> None:
    unexpected = islice((name for name in given if name not in known), MAX_FIELD_ERRORS)
    if errors := [{"loc": [*where, name[:100]], "msg": "Unknown field."} for name in unexpected]:
        raise BodyInvalid(errors)


CODEC = ProtocolCodec(
    route=ROUTE,
    decode=decode,
    identity=lambda body: body.content,
    encode_error=lambda problem: problem,
)
