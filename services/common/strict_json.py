"""Parse JSON, rejecting objects with duplicate members, which parsers treat differently."""

import json
from typing import Any

import orjson


class DuplicateMemberError(ValueError):
    """An object contains the same member twice."""


def loads(content: bytes) -> Any:
    """Parse a JSON document.

    orjson silently keeps the last of duplicate members. If serializing the result gives the same
    bytes, there were no duplicates; this is the case for compact JSON without escapes, which
    programs send, so that a batch of ten thousand events takes a few milliseconds. Only other
    documents are parsed again, by a slower parser that detects duplicates.

    Raises:
        orjson.JSONDecodeError: not JSON, or nested too deeply.
        DuplicateMemberError: an object contains the same member twice.
    """
    document = orjson.loads(content)
    if isinstance(document, dict | list) and not _is_as_written(document, content):
        try:
            # `len` because `int` rejects long numbers, and their values do not matter here.
            json.loads(content, object_pairs_hook=_unique, parse_int=len)
        except RecursionError as error:
            raise orjson.JSONDecodeError("nested too deeply", "", 0) from error
    return document


def _is_as_written(document: Any, content: bytes) -> bool:
    try:
        return orjson.dumps(document) == content
    except TypeError:  # nested too deeply for orjson to serialize
        return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMemberError
    return members
