"""Decode requests and encode responses of the v1 protocol; a request is JSON or CSV."""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, TypeVar

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
from services.inference.api.v1.intervals import bounds, can_vouch_for, read_level
from services.inference.models.table import LoadedModel

ROUTE = "/v1/models/{model}:predict"

_MEMBERS = {"instances", "parameters", "signature_name"}
"""TensorFlow Serving's clients send `signature_name`; a model has one signature."""
_PARAMETERS = {"probabilities", "intervals"}
HEADERS = ((b"content-type", b"application/json"),)

Options = TypeVar("Options")


class PredictOptions(NamedTuple):
    """What a response has besides predictions.

    Args:
        probabilities: whether it has a classifier's probabilities.
        level: the probability with which its intervals or label sets hold; None for neither.
        needs_probabilities: whether the model has to compute them.
    """

    probabilities: bool = False
    level: float | None = None
    needs_probabilities: bool = False


_PREDICTIONS_ONLY = PredictOptions()


class V1Request(NamedTuple):
    """A decoded v1 request."""

    arrays: Arrays
    rows: int
    options: PredictOptions

    @property
    def probabilities(self) -> bool:
        """Return whether the model has to compute probabilities."""
        return self.options.needs_probabilities

    @property
    def explains(self) -> bool:
        """Return False."""
        return False

    def suits(self, model: LoadedModel) -> bool:
        """Return whether another version can vouch for the requested level."""
        level = self.options.level
        return level is None or can_vouch_for(model, level)

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode `predictions`, and whatever else was requested."""
        document: dict[str, Any] = {"predictions": response.predictions}
        level = self.options.level
        if self.options.probabilities:
            document["probabilities"] = response.probabilities
        if level is not None:
            document |= bounds(model, response, level)
        return EncodedResponse(orjson.dumps(document), HEADERS)


def decode(body: Body, model: LoadedModel, max_rows: int) -> V1Request:
    """Decode a request according to the model's signature.

    Raises:
        BodyInvalid: as `decode_rows`.
    """
    arrays, rows, options = decode_rows(body, model, max_rows, _read_options)
    return V1Request(arrays, rows, options or _PREDICTIONS_ONLY)


def decode_rows(
    body: Body,
    model: LoadedModel,
    max_rows: int,
    read_options: Callable[[dict[str, Any], LoadedModel], Options],
) -> tuple[Arrays, int, Options | None]:
    """Decode the rows of a request, and its parameters if it has any; a CSV body has none.

    Raises:
        BodyInvalid: the body is neither JSON nor CSV, has duplicate members, violates the protocol
            or has too many values, or an instance does not match the signature.
    """
    if body.is_csv:
        rows = csv_body.read_instances(body.content, model.inputs, max_rows=max_rows)
        return model.inputs.decode(rows), len(rows), None
    if body.is_light or len(body.content) <= WHOLE_BYTES:
        return _read(load_object(body.content), body.content, model, max_rows, read_options)
    columns = len(model.inputs.columns)
    limits = JsonLimits(
        commas=max_rows * columns + SLACK, containers=max_rows + SLACK, members=columns + SLACK
    )
    with open_object(body.content, limits) as document:
        return _read(document, body.content, model, max_rows, read_options)


def _read(
    document: dict[str, Any],
    content: bytes,
    model: LoadedModel,
    max_rows: int,
    read_options: Callable[[dict[str, Any], LoadedModel], Options],
) -> tuple[Arrays, int, Options | None]:
    if not document.keys() <= _MEMBERS:
        refuse_unexpected(document, _MEMBERS, [])
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
    options = read_options(parameters, model) if parameters else None
    return model.inputs.decode(instances), len(instances), options


def _read_options(parameters: dict[str, Any], model: LoadedModel) -> PredictOptions:
    refuse_unexpected(parameters, _PARAMETERS, ["parameters"])
    wanted = parameters.get("probabilities", False)
    if type(wanted) is not bool or (wanted and not model.is_classifier):
        message = "Must be true or false; only classifiers have probabilities."
        raise BodyInvalid([{"loc": ["parameters", "probabilities"], "msg": message}])
    level = read_level(parameters["intervals"], model) if "intervals" in parameters else None
    return PredictOptions(wanted, level, wanted or (level is not None and model.is_classifier))


def refuse_unexpected(given: dict[str, Any], known: set[str], where: list[str]) -> None:
    """Check that an object has no unknown members.

    Raises:
        BodyInvalid: it has; lists up to 50 of them.
    """
    unexpected = islice((name for name in given if name not in known), MAX_FIELD_ERRORS)
    if errors := [{"loc": [*where, name[:100]], "msg": "Unknown field."} for name in unexpected]:
        raise BodyInvalid(errors)


CODEC = ProtocolCodec(
    route=ROUTE,
    decode=decode,
    identity=lambda body: body.content,
    encode_error=lambda problem: problem,
)
