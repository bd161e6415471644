"""Parse untrusted JSON: fast, without duplicate members, and without long pauses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from services.common.errors import BodyInvalid
from services.inference.api.json_structure import JsonLimits, not_json, scan

WHOLE_BYTES = 1 << 16
"""The largest text that is parsed in one go whatever it is; at worst this takes about 10 ms."""
LIGHT_BYTES = 1 << 20
LIGHT_VALUES = 1 << 15
LIGHT_CONTAINERS = 1 << 11
"""The largest text with few values, which parses faster than a small one with many."""

SLACK = 10_000
"""Values allowed beyond those of a valid request, so that common mistakes get precise errors."""


@contextmanager
def open_object(content: bytes, limits: JsonLimits) -> Iterator[dict[str, Any]]:
    """Parse a JSON object for a `with` block, after which its large lists are empty.

    Raises:
        BodyInvalid: it is not JSON, is not an object, or is large and exceeds the limits.
    """
    if is_light(content):
        yield load_object(content)
        return
    structure = scan(content, limits)
    try:
        yield _require_object(structure.load())
    finally:
        structure.free()


def load_object(content: bytes) -> dict[str, Any]:
    """Parse a light JSON object.

    Raises:
        BodyInvalid: it is not JSON, or not an object.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise not_json() from error
    return _require_object(document)


def _require_object(document: Any) -> dict[str, Any]:
    if type(document) is not dict:
        raise BodyInvalid([{"loc": ["body"], "msg": "The body must be a JSON object."}])
    return document


def has_as_many_colons(content: bytes, members: int) -> bool:
    """Return whether a text of at most `WHOLE_BYTES` has exactly this many colons.

    If so, and no more than these members are in its objects, none is a duplicate.
    """
    return len(content) <= WHOLE_BYTES and content.count(b":") == members


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
    if _count_colons(content) != members and scan(content).count_members() != _count(document):
        message = "Duplicate member or column."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])


def _count_colons(content: bytes) -> int:
    if len(content) <= WHOLE_BYTES:
        return content.count(b":")
    return int(np.count_nonzero(np.frombuffer(content, dtype=np.uint8) == ord(":")))


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


def is_light(content: bytes) -> bool:
    """Return whether a text can be parsed in one go, because that takes at most about 10 ms."""
    if len(content) <= WHOLE_BYTES:
        return True
    if len(content) > LIGHT_BYTES:
        return False
    characters = np.frombuffer(content, dtype=np.uint8)
    is_opening = (characters | 0x20) == ord("{")  # or "[", which lacks this bit
    return int(np.count_nonzero(is_opening)) <= LIGHT_CONTAINERS and all(
        int(np.count_nonzero(characters == ord(each))) <= LIGHT_VALUES for each in ",:\\"
    )
