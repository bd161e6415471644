"""Usage as Parquet, written row group by row group; needs pyarrow (the extra `parquet`)."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from io import BytesIO
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.billing.usage.billed import BilledEvent
from services.billing.usage.export_formats import Exported, amount_text

GROUP_ROWS = 20_000
"""Rows of a row group, which are in memory together."""

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("account", _TEXT, nullable=False),
        pa.field("model", _TEXT, nullable=False),
        pa.field("version", _TEXT, nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("client_id", _TEXT),
        pa.field("api_key", _TEXT),
        pa.field("tags", _TEXT),
        pa.field("amount", pa.decimal128(38, 9), nullable=False),
        pa.field("currency", _TEXT, nullable=False),
        pa.field("price_id", _TEXT, nullable=False),
        pa.field("invoice", _TEXT),
    ]
)


class ParquetWriter:
    """Writes Parquet; amounts are decimals with nine places."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported
        self._pages: list[Sequence[BilledEvent]] = []
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), _SCHEMA)

    def begin(self) -> bytes:
        return self._sink.take()

    def write(self, events: Sequence[BilledEvent]) -> bytes:
        self._pages.append(events)
        if sum(map(len, self._pages)) >= GROUP_ROWS:
            self._write_group()
        return self._sink.take()

    def end(self) -> bytes:
        if self._pages:
            self._write_group()
        self._writer.close()
        return self._sink.take()

    def _write_group(self) -> None:
        events = list(chain.from_iterable(self._pages))
        self._pages = []
        account, _, currency, invoice, _ = self._exported
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(event, name) or None for event in events]
            for name in ("id", "model", "version", "client_id", "api_key", "tags", "price_id")
        }
        columns["time"] = [datetime.fromisoformat(event.time) for event in events]
        columns["rows"] = [int(event.rows) for event in events]
        columns["amount"] = [_decimal(each.amount_high, each.amount_low) for each in events]
        for name, value in (("account", account), ("currency", currency), ("invoice", invoice)):
            columns[name] = [value] * len(events)
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))


class _Sink(BytesIO):
    """A file whose bytes are taken while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._taken = 0

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def tell(self) -> int:
        return self._taken + sum(map(len, self._pieces))

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = b"".join(self._pieces)
        self._taken += len(taken)
        self._pieces = []
        return taken


@lru_cache(maxsize=4096)
def _decimal(high: str, low: str) -> Decimal:
    return Decimal(amount_text(high, low))  # exact; arithmetic would round to 28 digits
