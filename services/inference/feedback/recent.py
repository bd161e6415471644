"""What this process answered lately, so that a true outcome can be held against it."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from services.common.model_store import Manifest
from services.inference.models.inputs import Arrays

MAX_ROWS = 50_000
"""Rows remembered; beyond them the oldest requests are forgotten."""
MAX_ROWS_OF_ONE = 100
"""A larger request is not remembered."""
MAX_BYTES = 32 << 20
"""Bytes of rows kept; beyond them, too, the oldest requests are forgotten."""
MAX_BYTES_OF_ONE = 64 << 10
"""Of a larger request only the answer is remembered."""


class Answered(NamedTuple):
    """One answered request; `arrays`, of `size` bytes, only where rows may be kept."""

    account: str
    manifest: Manifest
    predictions: list[Any]
    arrays: Arrays | None
    size: int

    def rows(self) -> list[list[Any]] | None:
        """The rows in signature order, with None for missing."""
        if self.arrays is None:
            return None
        kinds = [column.kind for column in self.manifest.signature.columns]
        joined = np.hstack([array.astype(object) for array in self.arrays.values()])
        return [
            [_value(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in joined
        ]


class Recent:
    """Answered requests by usage event, the latest `MAX_ROWS` rows of them.

    Args:
        keep_rows: whether what was asked is kept, and not only what was answered.
    """

    def __init__(self, *, keep_rows: bool) -> None:
        self._keep_rows = keep_rows
        self._answered: OrderedDict[str, Answered] = OrderedDict()
        self._rows = 0
        self._bytes = 0

    def add(
        self,
        event_id: str,
        *,
        account: str,
        manifest: Manifest,
        predictions: list[Any],
        arrays: Arrays,
        size: int,
    ) -> None:
        """Remember a request of `size` bytes; a repeat under its key replaces it."""
        if len(predictions) > MAX_ROWS_OF_ONE:
            return
        self._forget(event_id)
        answered = Answered(account, manifest, predictions, None, 0)
        if self._keep_rows and size <= MAX_BYTES_OF_ONE:
            answered = answered._replace(arrays=arrays, size=size)
        self._answered[event_id] = answered
        self._rows += len(predictions)
        self._bytes += answered.size
        while self._rows > MAX_ROWS or self._bytes > MAX_BYTES:
            self._forget(next(iter(self._answered)))

    def _forget(self, event_id: str) -> None:
        forgotten = self._answered.pop(event_id, None)
        if forgotten is not None:
            self._rows -= len(forgotten.predictions)
            self._bytes -= forgotten.size

    def find(self, event_id: str) -> Answered | None:
        """The request billed under an id, if it is remembered."""
        return self._answered.get(event_id)


def _value(value: Any, kind: str) -> Any:
    if kind == "text":
        return value or None
    if np.isnan(value):
        return None
    return bool(value) if kind == "boolean" else float(str(np.float32(value)))
