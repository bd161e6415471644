"""Digests of rows, so that `billing verify` finds any changed cell."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import orjson


def row_digest(row: Mapping[str, Any]) -> str:
    """Return the digest of a row's columns, with or without `digest`."""
    content = {
        str(name): value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name != "digest"
    }
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return blake2b(canonical, digest_size=16).hexdigest()
