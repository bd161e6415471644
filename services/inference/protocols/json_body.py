"""Reading the JSON of a stranger: orjson's speed, and no member that is given twice."""

import json
from typing import Any

import orjson

from services.common.errors import BodyInvalid


def load_object(content: bytes | memoryview) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BodyInvalid: it is not JSON, or not an object.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body is not valid JSON."}]) from error
    if type(document) is not dict:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body is a JSON object."}])
    return document


def refuse_duplicates(content: bytes, objects: list[Any]) -> None:
    """Two members of one name would make a request mean what its sender did not.

    orjson keeps the last of them. Every member has a colon, so as many colons as members means no
    duplicate; only otherwise (text with a colon in it, say) is the body read again by a parser
    that tells.

    Args:
        objects: all values of the document that may be objects.

    Raises:
        BodyInvalid: a member is given twice, or the body is nested too deeply to say.
    """
    members = sum(len(value) for value in objects if type(value) is dict)
    if content.count(b":") != members:
        try:
            # `int()` refuses long numbers, and what they are does not matter here.
            json.loads(content, object_pairs_hook=_unique, parse_int=len)
        except RecursionError as error:
            raise too_deep() from error


def too_deep() -> BodyInvalid:
    """The error for JSON that only a deeper stack could read."""
    return BodyInvalid([{"loc": ["body"], "msg": "The body is nested too deeply."}])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        message = "A member or column is given twice."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return members
