"""Exports of the usage that is billed in one month: every event, streamed in flat memory."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from services.billing.invoices.numbers import find_numbers
from services.billing.ledger.accounts import find_currencies
from services.billing.usage import repository
from services.billing.usage.export_formats import Exported, ExportFormat
from services.billing.usage.repository import PageEnd
from services.billing.usage.service import count_requests
from services.billing.usage.sums import month_bounds
from services.common.db.database import Database

PAGE_ROWS = 2000
"""Rows that are read at once; their connection is free again while they are sent."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


async def stream_usage(
    database: Database, *, account: str, period: str, file_format: ExportFormat
) -> AsyncIterator[bytes]:
    """Yield the events of an account that are billed in a period, oldest first.

    Late events of earlier months come last. They are looked for only if the sums of the period say
    that there are any, because no index finds them.
    """
    async with database.snapshot() as session:
        currency = (await find_currencies(session, accounts=[account])).get(account, "")
        numbers = await find_numbers(session, account=account, periods=[period])
    writer = file_format(Exported(account, period, currency, invoice=numbers.get(period)))
    yield writer.begin()
    start, end = month_bounds(period)
    exported = 0
    async for page in _pages(database, account, period, since=start, until=end):
        exported += len(page)
        yield await asyncio.to_thread(writer.write, page)
    async with database.snapshot() as session:
        billed = await count_requests(session, accounts=[account], period=period)
    if sum(billed.values()) > exported:
        async for page in _pages(database, account, period, since=_BEGINNING, until=start):
            yield await asyncio.to_thread(writer.write, page)
    yield await asyncio.to_thread(writer.end)


async def _pages(
    database: Database, account: str, period: str, *, since: datetime, until: datetime
) -> AsyncIterator[list[repository.BilledEvent]]:
    after: PageEnd | None = None
    while True:
        async with database.snapshot() as session:
            page = await repository.list_billed(
                session,
                account=account,
                period=period,
                since=since,
                until=until,
                after=after,
                limit=PAGE_ROWS,
            )
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]
        after = PageEnd(datetime.fromisoformat(last.time), last.id, last.source)
