"""Exports of the usage that is billed in one month: every event, streamed in flat memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from services.billing.invoices.numbers import find_numbers
from services.billing.ledger.accounts import find_currencies
from services.billing.usage import billed
from services.billing.usage.billed import BilledEvent
from services.billing.usage.export_formats import Exported, ExportFormat
from services.billing.usage.repository import PageEnd
from services.common.db.database import Database

PAGE_ROWS = 2000
"""Rows that are read at once; their connection is free again while they are sent."""

ListPage = Callable[..., Awaitable[list[BilledEvent]]]


async def stream_usage(
    database: Database, *, account: str, period: str, file_format: ExportFormat, seller: str
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
    for list_page in (billed.list_billed, billed.list_late):
        async for page in _pages(database, list_page, account=account, period=period):
            yield await asyncio.to_thread(writer.write, page)
    yield await asyncio.to_thread(writer.end)


async def _pages(
    database: Database, list_page: ListPage, *, account: str, period: str
) -> AsyncIterator[list[BilledEvent]]:
    after: PageEnd | None = None
    while True:
        async with database.snapshot() as session:
            page = await list_page(
                session, account=account, period=period, after=after, limit=PAGE_ROWS
            )
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]
        after = PageEnd(datetime.fromisoformat(last.time), last.id, last.source)
