"""The request headers of predictions, as the OpenAPI document describes them."""

from typing import Annotated

from fastapi import Header

TIMEOUT_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
"""Seconds, as `X-Request-Timeout` states them."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A repeat with the same account, key, path and content is not billed again.",
    ),
]
RequestTimeout = Annotated[
    str | None,
    Header(
        pattern=TIMEOUT_PATTERN,
        description="A request that cannot begin within so many seconds gets 503, unbilled.",
    ),
]
