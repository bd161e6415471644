"""What pydantic's errors say to clients and operators, in the words of this project."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

_NOT_AN_OBJECT = {"dict_type", "model_attributes_type", "model_type"}
_MISMATCHES: dict[str, str] = {}
"""What to say of text that does not match, by pattern; unlike a validator, free for valid text."""


def matching(pattern: str, otherwise: str, **more: Any) -> Any:
    """Return a field whose text must match a pattern.

    Args:
        otherwise: the message if it does not, instead of the regular expression.
        more: further arguments of `Field`.
    """
    _MISMATCHES[pattern] = otherwise
    return Field(pattern=pattern, **more)


def message_of(entry: Mapping[str, Any]) -> str:
    """Return what is wrong, from an entry of pydantic's `errors()`."""
    message: str = entry["msg"]
    if entry["type"] == "string_pattern_mismatch":
        return _MISMATCHES.get(entry["ctx"]["pattern"], message)
    if entry["type"] in _NOT_AN_OBJECT:
        return "Must be a JSON object."
    return message.removeprefix("Value error, ")


def explain(entries: Sequence[Mapping[str, Any]], *, body: Any) -> list[dict[str, Any]]:
    """Return what is wrong with a request as `{"loc", "msg"}`, each once, without the input.

    Args:
        entries: pydantic's `errors()`.
        body: the request's parsed body; bytes if its media type is not that of JSON.
    """
    if isinstance(body, bytes) and any(entry["loc"] == ("body",) for entry in entries):
        return [{"loc": ["body"], "msg": "Send a JSON object, as Content-Type: application/json."}]
    found = [(_locate(entry, body), entry) for entry in entries]
    invalid = {loc[:length] for loc, _ in found for length in range(len(loc))}
    # A list that lost its invalid items is then called too short, which it was not.
    distinct = dict.fromkeys(
        (loc, message_of(entry))
        for loc, entry in found
        if entry["type"] != "too_short" or loc not in invalid
    )
    return [{"loc": [_clip(part) for part in loc], "msg": message} for loc, message in distinct]


def _locate(entry: Mapping[str, Any], body: Any) -> tuple[Any, ...]:
    """Return where an error is, without pydantic's names for the members of a union."""
    first, *parts = entry["loc"]
    if first != "body":
        return first, *parts
    value, kept = body, [first]
    for number, part in enumerate(parts, start=1):
        is_missing = entry["type"] == "missing" and number == len(parts)
        if isinstance(part, int) or is_missing or (isinstance(value, dict) and part in value):
            kept.append(part)
            value = _inside(value, part)
    return tuple(kept)


def _inside(value: Any, part: Any) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _clip(part: Any) -> Any:
    """Shorten part of a location, which the client may have chosen, and make it printable."""
    return part if isinstance(part, int) else ascii(str(part)[:100])[1:-1]
