"""What a caller may choose for one call, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from tollgate_client.rows import invalid

MAX_TAGS = 5
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_TAG = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Options:
    """The deadline, the idempotency key and the tags of a call."""

    timeout_s: float
    idempotency_key: str
    headers: Mapping[str, str] = field(default_factory=dict)


def read_options(
    *, timeout: float, idempotency_key: str | None, tags: Mapping[str, str] | None
) -> Options:
    """Return the options of a call; without a key, it gets a random one.

    Raises:
        InvalidInputError: the key or a tag has characters that are not allowed.
    """
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        message = "Must be 1 to 255 printable ASCII characters."
        raise invalid("The call is not possible.", [{"loc": ["idempotency_key"], "msg": message}])
    headers = {"content-type": "application/json"}
    if tags:
        headers["x-tags"] = _join(tags)
    return Options(timeout, idempotency_key or str(uuid4()), headers)


def _join(tags: Mapping[str, str]) -> str:
    words = [word for tag in tags.items() for word in tag]
    if len(tags) > MAX_TAGS or not all(_TAG.fullmatch(word) for word in words):
        message = (
            f"At most {MAX_TAGS}; names and values are 1 to 64 letters, digits, '.', '_' or '-'."
        )
        raise invalid("The call is not possible.", [{"loc": ["tags"], "msg": message}])
    return ",".join(f"{name}={value}" for name, value in tags.items())
