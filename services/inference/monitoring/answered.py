"""What the monitoring of a version learns of each request that it answered."""

from typing import Any, NamedTuple

from registry.features import Arrays


class AnsweredRequest(NamedTuple):
    """An answered request; `size` in bytes of memory."""

    event_id: str
    account: str
    arrays: Arrays
    predictions: list[Any]
    size: int
