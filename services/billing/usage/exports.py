"""Exports of the usage that is billed in one month: every event, streamed in flat memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from services.billing.archives.reading import NO_ARCHIVES, Archives, Wanted, list_files
from services.billing.event_places import EventPlace
from services.billing.invoices.numbers import find_numbers
from services.billing.ledger.accounts import find_currencies
from services.billing.periods import start_of
from services.billing.usage import billed
from services.billing.usage.billed import BilledEvent, read_billed
from services.billing.usage.export_formats import Exported, ExportFormat
from services.common.db.database import Database

PAGE_ROWS = 5000
"""Rows that are read at once; their connection is free again while they are sent."""

ListPage = Callable[..., Awaitable[list[BilledEvent]]]


async def stream_usage(
    database: Database,
    archives: Archives = NO_ARCHIVES,
    *,
    account: str,
    period: str,
    file_format: ExportFormat,
    seller: str,
) -> AsyncIterator[bytes]:
    """Yield the events of an account that are billed in a period, oldest first.

    Late events of earlier months come last.

    Args:
        seller: the name of who sells.
    """
    async with database.snapshot() as session:
        currency = (await find_currencies(session, accounts=[account])).get(account, "")
        numbers = await find_numbers(session, account=account, periods=[period])
    writer = file_format(Exported(account, period, currency, numbers.get(period), seller))
    yield writer.begin()
    own = Wanted(account=account, since=start_of(period))
    late = Wanted(account=account, until=start_of(period))
    for list_page, wanted in ((billed.list_billed, own), (billed.list_late, late)):
        async for page in _pages(database, archives, list_page, wanted, period=period):
            yield await asyncio.to_thread(writer.write, page)
    yield await asyncio.to_thread(writer.end)


async def _pages(
    database: Database, archives: Archives, list_page: ListPage, wanted: Wanted, *, period: str
) -> AsyncIterator[list[BilledEvent]]:
    """Yield a month's events from the database or, once it is archived, from its files."""
    after: EventPlace | None = None
    while True:
        async with database.snapshot() as session:
            page = await list_page(
                session, account=wanted.account, period=period, after=after, limit=PAGE_ROWS
            )
            parts = await list_files(session, period=period, account=wanted.account)
        if parts:  # then the page may lack events that have been deleted
            wanted = replace(wanted, after=after)
            async for events in archives.stream_each(parts, wanted):
                yield [read_billed(event) for event in events]
            return
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]
        after = EventPlace(datetime.fromisoformat(last.time), last.id, last.source)
