"""Stored sums that agree with what they are sums of, shown by fingerprints: for MySQL only."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.fingerprints import Weights
from services.billing.models import UsageEvent, UsageVersion
from services.billing.usage.kept import Kept, Stored, events_of
from services.billing.usage.sums import hour_of
from services.billing.usage.windows import ALL_TIME, Window

_HOUR_CHARS = len("2026-11-01 12")


class Agreement(NamedTuple):
    """Stored sums that are right.

    Args:
        stored: how many there are.
        more: what else was counted, by label.
    """

    stored: int
    more: dict[str, int]


class _OfHour(NamedTuple):
    """The fingerprint of an hour's stored sums.

    Args:
        large: how many amounts have more than 64 bits.
        empty: how many sums count no request.
        stored: how many sums there are.
    """

    fingerprint: int = 0
    large: int = 0
    empty: int = 0
    stored: int = 0


class StoredSums:
    """The fingerprints of some stored sums, by hour."""

    def __init__(self, kept: Kept, weights: Weights, by_hour: dict[datetime, _OfHour]) -> None:
        self._kept, self._weights = kept, weights
        self._hours, self._of_hours = list(by_hour), list(by_hour.values())

    @classmethod
    async def read(cls, connection: AsyncConnection, kept: Kept, weights: Weights) -> "StoredSums":
        """Read all stored sums once."""
        table = kept.table
        keys = [getattr(table, name) for name in kept.by]
        fingerprints = select(
            table.hour,
            *_fingerprint(weights, table, table.hour, table.requests, *keys),
            func.sum(case((table.requests < 1, 1), else_=0)),
            func.count(),
        )
        ordered = fingerprints.where(kept.where).group_by(table.hour).order_by(table.hour)
        found = await connection.execute(ordered)
        return cls(kept, weights, {hour: _OfHour(*map(int, numbers)) for hour, *numbers in found})

    async def agree_with_events(
        self,
        connection: AsyncConnection,
        window: Window,
        more: Sequence[ColumnElement[Any]] = (),
    ) -> Agreement | None:
        """Compare the sums of a window with its events.

        Args:
            more: what else to count of the events.

        Returns:
            None if they differ, or if fingerprints cannot show it: they say nothing about amounts
            of more than 64 bits, or about sums of no request or of a time within an hour.
        """
        event, keys = UsageEvent, self._kept.by.values()
        fingerprint = _fingerprint(self._weights, event, event.time, 1, *keys)
        used = select(*fingerprint, *more).where(*events_of(window, self._kept))
        return self._compare(window, (await connection.execute(used)).one())

    async def agree_with_versions(self, connection: AsyncConnection) -> Agreement | None:
        """Compare the sums of hours with those by version; returns as `agree_with_events`."""
        table = UsageVersion
        keys = [getattr(table, name) for name in self._kept.by]
        used = select(*_fingerprint(self._weights, table, table.hour, table.requests, *keys))
        return self._compare(ALL_TIME, (await connection.execute(used)).one())

    def _compare(self, window: Window, used: Row[Any]) -> Agreement | None:
        stored = self._within(window)
        fingerprint, large, *more = (int(value or 0) for value in used)
        if (fingerprint, large) != stored[:2] or stored.large or stored.empty:
            return None
        return Agreement(stored.stored, dict(zip(used._fields[2:], more, strict=True)))

    def _within(self, window: Window) -> _OfHour:
        begin = 0 if window.since is None else bisect_left(self._hours, window.since)
        end = None if window.until is None else bisect_left(self._hours, window.until)
        if any(hour != hour_of(hour) for hour in self._hours[begin:end]):
            return _OfHour(empty=1)
        return _OfHour(*map(sum, zip(*self._of_hours[begin:end], strict=True)))


def _fingerprint(
    weights: Weights, source: type[UsageEvent] | Stored, time: Any, requests: Any, *keys: Any
) -> list[ColumnElement[Any]]:
    """Return the fingerprint of rows, and how many amounts have more than 64 bits.

    Args:
        time: of the row; only its hour counts.
        keys: what the sums are kept by, besides account and hour.
    """
    of_row = (
        source.amount_low
        + weights.factor("rows") * source.rows
        + weights.factor("requests") * requests
    )
    weight = weights.of(source.account, func.left(time, _HOUR_CHARS), *keys)
    return [func.sum(weight * of_row), func.sum(case((source.amount_high != 0, 1), else_=0))]
