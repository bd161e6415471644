"""The request headers of predictions, as the OpenAPI document describes them."""

from typing import Annotated

from fastapi import Header

from services.common.contracts import MAX_TAGS, TAG_PATTERN

TIMEOUT_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
"""Seconds, as `X-Request-Timeout` states them."""
_TAG = f"{TAG_PATTERN}={TAG_PATTERN}"

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
Tags = Annotated[
    str | None,
    Header(
        alias="X-Tags",
        pattern=f"^{_TAG}(,{_TAG}){{0,{MAX_TAGS - 1}}}$",
        description="Names and values by which usage can be grouped, such as `team=a,project=b`.",
    ),
]
