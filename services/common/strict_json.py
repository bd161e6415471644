"""JSON in which no object has two members of one name: readers differ on which one counts."""

import json
from typing import Any

import orjson


class DuplicateMemberError(ValueError):
    """A member is given twice in one object."""


def loads(content: bytes) -> Any:
    """Read a document.

    orjson keeps the last of two members of one name. What it reads and writes again is the same
    bytes only if there are none, and any compact JSON without escapes is: that is what programs
    send, and so a batch of ten thousand events costs a few milliseconds. Only what differs is read
    once more, by a parser that notices.

    Raises:
        orjson.JSONDecodeError: not JSON, or nested too deeply.
        DuplicateMemberError: a member is given twice.
    """
    document = orjson.loads(content)
    if isinstance(document, dict | list) and not _is_as_written(document, content):
        try:
            # `int()` refuses long numbers, and what they are does not matter here.
            json.loads(content, object_pairs_hook=_unique, parse_int=len)
        except RecursionError as error:
            raise orjson.JSONDecodeError("nested too deeply", "", 0) from error
    return document


def _is_as_written(document: Any, content: bytes) -> bool:
    try:
        return orjson.dumps(document) == content
    except TypeError:  # nested deeper than it writes
        return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMemberError
    return members
