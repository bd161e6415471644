"""Recent predictions of this process, kept to be compared with their true outcomes."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from registry.features import Arrays
from registry.records import Manifest

MAX_ROWS = 50_000
MAX_ROWS_OF_ONE = 100
"""Requests with more rows are not kept."""
MAX_BYTES = 32 << 20
MAX_BYTES_OF_ONE = 64 << 10


class RecentPrediction(NamedTuple):
    """The predictions of one request, with its input `arrays` of `size` bytes if they are kept."""

    account: str
    manifest: Manifest
    predictions: list[Any]
    arrays: Arrays | None
    size: int

    def rows(self) -> list[list[Any]] | None:
        """Return the input rows in signature order, with None for missing values."""
        if self.arrays is None:
            return None
        kinds = [column.kind for column in self.manifest.signature.columns]
        joined = np.hstack([array.astype(object) for array in self.arrays.values()])
        return [
            [_value(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in joined
        ]


class RecentPredictions:
    """Recent predictions by usage event; the oldest requests are dropped first.

    Args:
        keep_rows: whether to keep the input rows as well.
        max_rows: maximum rows kept.
        max_bytes: maximum bytes of input rows kept.
        max_bytes_of_one: for a larger request only the predictions are kept.
    """

    def __init__(
        self,
        *,
        keep_rows: bool,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
        max_bytes_of_one: int = MAX_BYTES_OF_ONE,
    ) -> None:
        self._keep_rows = keep_rows
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_bytes_of_one = max_bytes_of_one
        self._predictions: OrderedDict[str, RecentPrediction] = OrderedDict()
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
        """Keep the predictions of a request of `size` bytes; replaces those of the same event."""
        if len(predictions) > MAX_ROWS_OF_ONE:
            return
        self._drop(event_id)
        recent = RecentPrediction(account, manifest, predictions, None, 0)
        if self._keep_rows and size <= self._max_bytes_of_one:
            recent = recent._replace(arrays=arrays, size=size)
        self._predictions[event_id] = recent
        self._rows += len(predictions)
        self._bytes += recent.size
        while self._rows > self._max_rows or self._bytes > self._max_bytes:
            self._drop(next(iter(self._predictions)))

    def _drop(self, event_id: str) -> None:
        dropped = self._predictions.pop(event_id, None)
        if dropped is not None:
            self._rows -= len(dropped.predictions)
            self._bytes -= dropped.size

    def find(self, event_id: str) -> RecentPrediction | None:
        """Return the predictions billed under an event id, or None if they are not kept."""
        return self._predictions.get(event_id)


def _value(value: Any, kind: str) -> Any:
    if kind == "text":
        return value or None
    if np.isnan(value):
        return None
    return bool(value) if kind == "boolean" else float(str(np.float32(value)))
