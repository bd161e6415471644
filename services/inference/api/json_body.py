"""Parse untrusted JSON: fast, without duplicate members, and without long pauses."""

from typing import Any

import orjson

from services.common.errors import BodyInvalid
from services.inference.api.json_structure import JsonLimits, not_json, scan

WHOLE_BYTES = 1 << 16
"""The largest text that is parsed in one go; at worst this takes about 10 ms."""

SLACK = 10_000
"""Values allowed beyond those of a valid request, so that common mistakes get precise errors."""


def load_object(content: bytes, limits: JsonLimits) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        BodyInvalid: it is not JSON, is not an object, or is large and exceeds the limits.
    """
    if len(content) <= WHOLE_BYTES:
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise not_json() from error
    else:
        document = scan(content, limits).load()
    if type(document) is not dict:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body must be a JSON object."}])
    return document


def refuse_duplicates(content: bytes, document: dict[str, Any], objects: list[Any]) -> None:
    """Reject duplicate member names: orjson keeps the last, which may not be the intended one.

    Every member has a colon, so as many colons as members means there are no duplicates. Strings
    can contain colons too; only then are the colons outside strings counted.

    Args:
        document: the parsed `content`.
        objects: the objects that a valid request has; other values in the list are ignored.

    Raises:
        BodyInvalid: a name occurs twice in one object.
    """
    members = sum(len(value) for value in objects if type(value) is dict)
    if content.count(b":") != members and scan(content).count_members() != _count(document):
        message = "Duplicate member or column."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])


def _count(document: dict[str, Any]) -> int:
    """Return the number of members of all objects in a document."""
    members = 0
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            members += len(value)
            value = value.values()
        waiting += [each for each in value if type(each) is dict or type(each) is list]
    return members
