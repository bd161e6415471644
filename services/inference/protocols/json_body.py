"""Reading a stranger's JSON: fast, without duplicate members, and never for long at once."""

from typing import Any

import orjson

from services.common.errors import BodyInvalid
from services.inference.protocols.json_structure import JsonLimits, not_json, scan

WHOLE_BYTES = 1 << 16
"""Up to so many bytes are read at once; the worst text of this size takes some 10 ms."""

SLACK = 10_000
"""Values beyond those a good request can have, so that common mistakes are still named."""


def load_object(content: bytes, limits: JsonLimits) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        BodyInvalid: it is not JSON or not an object, or is large and over the limits.
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
    """Refuse two members of one name, which would make a request mean what its sender did not.

    orjson keeps the last of them. Every member has a colon, so as many colons as members means no
    duplicate. Text may have colons too; only then are those outside text counted.

    Args:
        document: what `content` was read as.
        objects: those objects in it that a request has, at little cost; other values are ignored.

    Raises:
        BodyInvalid: a member is given twice.
    """
    members = sum(len(value) for value in objects if type(value) is dict)
    if content.count(b":") != members and scan(content).count_members() != _count(document):
        message = "A member or column is given twice."
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
