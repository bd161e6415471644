"""The request document of the v1 protocol, from bytes to rows and wishes."""

import json
from typing import Any

import orjson

from services.common.errors import BodyInvalid
from services.inference.models.registry import LoadedModel

_MEMBERS = {"instances", "parameters"}
_PARAMETERS = {"probabilities"}


def parse(body: bytes, model: LoadedModel, *, max_rows: int) -> tuple[list[Any], bool]:
    """The instances of a request, not yet held against the signature, and its wish.

    Returns:
        A non-empty list, and whether probabilities are wanted.

    Raises:
        BodyInvalid: not JSON, ambiguous JSON, or not of the protocol's shape.
    """
    document = _load(body)
    if type(document) is not dict:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body is a JSON object."}])
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
    _refuse_duplicates(body, [document, parameters, *instances])
    return instances, _wants_probabilities(parameters, model)


def _wants_probabilities(parameters: dict[str, Any], model: LoadedModel) -> bool:
    _refuse_unexpected(parameters, _PARAMETERS, ["parameters"])
    wanted = parameters.get("probabilities", False)
    if type(wanted) is not bool or (wanted and not model.is_classifier):
        message = "true or false is needed; only classifiers have probabilities."
        raise BodyInvalid([{"loc": ["parameters", "probabilities"], "msg": message}])
    return wanted


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body is not valid JSON."}]) from error


def _refuse_unexpected(given: dict[str, Any], known: set[str], where: list[str]) -> None:
    if unexpected := given.keys() - known:
        raise BodyInvalid(
            [{"loc": [*where, name[:100]], "msg": "No such member."} for name in sorted(unexpected)]
        )


def _refuse_duplicates(body: bytes, objects: list[Any]) -> None:
    """Two members of one name would make a row mean what its sender did not.

    orjson keeps the last of them. Every member has a colon, so as many colons as members means no
    duplicate; only otherwise (text with a colon in it, say) is the body read again by a parser
    that tells.
    """
    members = sum(len(value) for value in objects if type(value) is dict)
    if body.count(b":") != members:
        try:
            json.loads(body, object_pairs_hook=_unique, parse_int=len)  # int() refuses long numbers
        except RecursionError as error:
            message = "The body is nested too deeply."
            raise BodyInvalid([{"loc": ["body"], "msg": message}]) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        message = "A member or column is given twice."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return members
