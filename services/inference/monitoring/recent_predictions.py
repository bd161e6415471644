"""Recent predictions of this process, kept to be compared with their true outcomes.

Each request is kept as one `bytes` object. The garbage collector does not track such objects: with
tuples, lists and arrays in their place, every full collection would stop the event loop for tens of
milliseconds.
"""

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from registry.datetimes import format_time
from registry.records import Manifest
from services.inference.monitoring.answered import AnsweredRequest

MAX_ROWS = 50_000
MAX_ROWS_OF_ONE = 100
"""Requests with more rows are not kept; the number must fit into a byte."""
MAX_BYTES = 32 << 20
MAX_BYTES_OF_ONE = 64 << 10
MAX_VERSIONS = 256
"""How many versions may have recent predictions; those of further versions are dropped."""


class RecentPrediction(NamedTuple):
    """The predictions of one request.

    Args:
        rows: the input rows in signature order, with None for missing values, if they are kept.
    """

    account: str
    manifest: Manifest
    predictions: list[Any]
    rows: list[list[Any]] | None


class RecentPredictions:
    """Recent predictions by usage event; the oldest requests are dropped first.

    Args:
        keep_rows: whether to keep the input rows as well.
        max_rows: maximum rows kept.
        max_bytes: maximum bytes kept.
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
        self._records: dict[str, bytes] = {}
        self._event_ids: deque[str] = deque()
        """Keys of the records, oldest first; a dict finds its own oldest key slowly."""
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._rows = 0
        self._bytes = 0

    def add(self, manifest: Manifest, answered: Sequence[AnsweredRequest]) -> None:
        """Keep the predictions of requests to one version; each replaces those of its event."""
        version = manifest.model, manifest.version
        if version not in self._manifests:
            self._add_version(version, manifest)
        for event_id, account, arrays, predictions, size in answered:
            rows = len(predictions)
            if rows > MAX_ROWS_OF_ONE:
                continue
            kept = arrays if self._keep_rows and size <= self._max_bytes_of_one else None
            fields = (*version, account, predictions, kept)
            # One byte with the number of rows, then JSON.
            record = b"%c%b" % (rows, orjson.dumps(fields, _jsonable, orjson.OPT_SERIALIZE_NUMPY))
            if event_id in self._records:
                self._discount(self._records[event_id])
            else:
                self._event_ids.append(event_id)
            self._records[event_id] = record
            self._rows += rows
            self._bytes += len(record)
        while self._rows > self._max_rows or self._bytes > self._max_bytes:
            self._discount(self._records.pop(self._event_ids.popleft()))

    def find(self, event_id: str) -> RecentPrediction | None:
        """Return the predictions billed under an event id, or None if they are not kept."""
        record = self._records.get(event_id)
        if record is None:
            return None
        model, version, account, predictions, arrays = _decode(record)
        manifest = self._manifests.get((model, version))
        if manifest is None:
            return None
        rows = None if arrays is None else _rows(arrays, manifest)
        return RecentPrediction(account, manifest, predictions, rows)

    def _add_version(self, version: tuple[str, str], manifest: Manifest) -> None:
        if len(self._manifests) >= MAX_VERSIONS:
            self._manifests.pop(next(iter(self._manifests)))
        self._manifests[version] = manifest

    def _discount(self, record: bytes) -> None:
        self._rows -= record[0]
        self._bytes -= len(record)


def _jsonable(array: npt.NDArray[Any]) -> Any:
    """Return an array that orjson does not take as one that it takes."""
    return array.tolist() if array.dtype.hasobject else np.ascontiguousarray(array)


def _decode(record: bytes) -> Any:
    return orjson.loads(memoryview(record)[1:])


def _rows(arrays: dict[str, list[list[Any]]], manifest: Manifest) -> list[list[Any]]:
    kinds = [column.kind for column in manifest.signature.columns]
    joined = map(chain.from_iterable, zip(*arrays.values(), strict=True))
    return [[_value(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in joined]


def _value(value: Any, kind: str) -> Any:
    if kind in ("text", "sentence"):
        return value or None
    if value is None:
        return None
    if kind == "datetime":
        return format_time(value)
    return bool(value) if kind == "boolean" else float(value)
