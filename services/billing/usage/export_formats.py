"""The files that usage is exported to: CSV, FOCUS 1.2 and Parquet.

A writer returns the bytes of a file piece by piece, so that no file is ever whole in memory.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from services.billing.amounts import join
from services.billing.csv_text import csv_columns, csv_lines
from services.billing.usage.billed import BilledEvent
from services.billing.usage.focus import FOCUS_COLUMNS, new_focus_row
from services.common.contracts import format_amount

COLUMNS = (
    "time",
    "id",
    "account",
    "model",
    "version",
    "rows",
    "client_id",
    "api_key",
    "tags",
    "amount",
    "currency",
    "price_id",
    "invoice",
)
"""The columns of CSV and Parquet; `tags` is a JSON object."""


class Exported(NamedTuple):
    """What all rows of a file have in common."""

    account: str
    period: str
    currency: str
    invoice: str | None
    """The number of the period's invoice, once there is one."""
    seller: str
    """The name of who sells."""


class ExportWriter(Protocol):
    """Writes one file."""

    def begin(self) -> bytes:
        """Return the file's first bytes."""

    def write(self, events: Sequence[BilledEvent]) -> bytes:
        """Return the bytes of more events; some may come later."""

    def end(self) -> bytes:
        """Return the file's last bytes."""


ExportFormat = Callable[[Exported], ExportWriter]


class CsvWriter:
    """Writes CSV in which no spreadsheet sees a formula."""

    def __init__(self, exported: Exported) -> None:
        self._constant = {
            "account": exported.account,
            "currency": exported.currency,
            "invoice": exported.invoice or "",
        }

    def begin(self) -> bytes:
        return csv_lines([COLUMNS]).encode()

    def write(self, events: Sequence[BilledEvent]) -> bytes:
        if not events:
            return b""
        columns: dict[str, Sequence[str]] = {
            name: [value] * len(events) for name, value in self._constant.items()
        }
        columns.update(zip(BilledEvent._fields, zip(*events, strict=True), strict=True))
        columns["amount"] = [*map(amount_text, columns["amount_high"], columns["amount_low"])]
        return csv_columns(columns[name] for name in COLUMNS).encode()

    def end(self) -> bytes:
        return b""


class FocusWriter:
    """Writes CSV by FOCUS 1.2, one row for each event."""

    def __init__(self, exported: Exported) -> None:
        self._new_row = new_focus_row(
            account=exported.account,
            period=exported.period,
            currency=exported.currency,
            invoice=exported.invoice,
            seller=exported.seller,
        )

    def begin(self) -> bytes:
        return csv_lines([FOCUS_COLUMNS]).encode()

    def write(self, events: Sequence[BilledEvent]) -> bytes:
        return csv_lines(
            self._new_row(event, amount_text(event.amount_high, event.amount_low))
            for event in events
        ).encode()

    def end(self) -> bytes:
        return b""


@lru_cache(maxsize=4096)
def amount_text(high: str, low: str) -> str:
    """Return an amount as a decimal string; few events of a month differ in theirs."""
    return format_amount(join(int(high), int(low)))
