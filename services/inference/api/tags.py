"""Tags of a request, by which its usage can be grouped: `X-Tags: team=a,project=b`."""

import re

import orjson

from services.common.contracts import MAX_TAGS, TAG_PATTERN
from services.common.errors import BadRequest

_TAG = re.compile(f"({TAG_PATTERN})=({TAG_PATTERN})")


def read_tags(value: bytes) -> str:
    """Return the tags in the value of an `X-Tags` header, as a JSON object.

    Raises:
        BadRequest: they are too many, malformed, or two have the same name.
    """
    found = [_TAG.fullmatch(tag) for tag in value.decode("latin-1").split(",")]
    tags = {tag[1]: tag[2] for tag in found if tag}
    if not len(tags) == len(found) <= MAX_TAGS:
        raise BadRequest(
            f"X-Tags must be at most {MAX_TAGS} pairs such as team=a,project=b, with different "
            "names; names and values are 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'."
        )
    return orjson.dumps(tags).decode()
