"""Closing a month: no more usage is added to it, and every account gets its invoice.

A run can be killed at any moment and repeated. The month is closed in one transaction, which waits
for the batches that saw it open. Its usage is then added up in one statement and streamed, ordered
by account; some accounts at a time get their invoices in one transaction, and a later run skips
them. An account that cannot get one is reported, and does not stop the others. The same statement
shows whether any of it has no ledger entry. Accounts that only owe a monthly fee come last.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.currencies import UnknownCurrency, is_known
from services.billing.database import long_snapshot
from services.billing.invoices import billed, repository
from services.billing.invoices.catching_up import catch_up, post_usage
from services.billing.invoices.issuing import Books, issue, issue_fees
from services.billing.invoices.making import Usage
from services.billing.invoices.schemas import BillingRunRead, FailedInvoice, IssuedInvoice
from services.billing.ledger.accounts import find_currencies
from services.billing.periods import close_period, next_period, start_of
from services.billing.plans.fees import stream_fee_accounts
from services.billing.sources.service import list_sources
from services.common.contracts import format_amount
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import ServiceError

ACCOUNTS_AT_ONCE = 50
"""Accounts whose invoices one transaction issues."""

log = structlog.get_logger()

Issued = Callable[[int], None]
"""Called with how many accounts have their invoice."""


class MonthNotOver(ServiceError):
    """The month is not over yet."""

    status = 409
    code = "month_not_over"
    detail = "The month is not over yet."


class UsageMissing(ServiceError):
    """Usage that inference has recorded has not arrived."""

    status = 409
    code = "usage_missing"
    detail = "Some usage has not arrived; `GET /sources` lists it."


async def run(
    database: Database,
    *,
    period: str,
    forced_reason: str | None,
    books: Books,
    now: datetime,
    on_progress: Issued = lambda _: None,
) -> BillingRunRead:
    """Close a month and issue its invoices; a repeat returns the same ones.

    Args:
        forced_reason: why to close it although usage is missing; None refuses then.

    Raises:
        MonthNotOver: the month is not over.
        UsageMissing: a journal has gaps, and nothing forces the run.
        Unavailable: the database is unavailable; repeat the run.
    """
    if now < start_of(next_period(period)):
        raise MonthNotOver(f"{period} is not over yet.")
    await in_transaction(
        database,
        lambda session: _close(session, period=period, forced_reason=forced_reason, now=now),
    )
    async with database.snapshot() as session:
        month = await repository.find_period(session, period=period)
    failed: list[FailedInvoice] = []
    if month is None or month.invoiced_at is None:
        series = books.series("invoice")
        await catch_up(database, period=period, series=series, now=now)
        unposted, failed = await _issue_all(
            database, period=period, books=books, now=now, on_progress=on_progress
        )
        if unposted:
            await post_usage(database, series=series, now=now)
        if not failed:
            await in_transaction(
                database, lambda session: repository.mark_invoiced(session, period=period, now=now)
            )
    async with database.snapshot() as session:
        issued = await repository.list_issued(session, period=period)
    return BillingRunRead(period=period, invoices=[_issued(*row) for row in issued], failed=failed)


async def _close(
    session: AsyncSession, *, period: str, forced_reason: str | None, now: datetime
) -> None:
    """Close a month, unless it is closed.

    Raises:
        UsageMissing: a journal has gaps, and nothing forces it.
    """
    month = await repository.find_period(session, period=period)
    if month is not None and month.closed_at is not None:
        return
    sources = await list_sources(session, now=now)
    gaps = [source.journal for source in sources if source.missing]
    if gaps and forced_reason is None:
        shown = ", ".join(gaps[:3]) + (", …" if len(gaps) > 3 else "")
        raise UsageMissing(
            f"Usage of {len(gaps)} journals has not arrived: {shown} (see GET /sources). Wait, or "
            "repeat with `force` and a `reason`."
        )
    await close_period(session, period=period, reason=forced_reason if gaps else None, now=now)


async def _issue_all(
    database: Database, *, period: str, books: Books, now: datetime, on_progress: Issued
) -> tuple[int, list[FailedInvoice]]:
    """Issue a month's invoices.

    Returns:
        How many requests have no ledger entry, and the accounts that cannot get an invoice.
    """
    count = unposted = 0
    failed: list[FailedInvoice] = []
    async with long_snapshot(database) as connection:
        usage = billed.stream_usage(connection, period=period)
        async with aclosing(_chunks(usage)) as chunks:
            async for chunk in chunks:
                unposted += sum(part.unposted for parts in chunk.values() for part in parts)
                refused = await _find_refused(database, accounts=chunk.keys())
                failed += refused
                for each in refused:
                    del chunk[each.account]
                await in_transaction(
                    database,
                    lambda session, chunk=chunk: issue(  # type: ignore[misc]
                        session, chunk, period=period, books=books, now=now
                    ),
                )
                count += len(chunk)
                on_progress(count)
    pages = stream_fee_accounts(database, period=period, at_once=ACCOUNTS_AT_ONCE)
    async with aclosing(pages):
        async for page in pages:
            issued = await in_transaction(
                database,
                lambda session, page=page: issue_fees(  # type: ignore[misc]
                    session, accounts=page, period=period, books=books, now=now
                ),
            )
            if issued:
                count += issued
                on_progress(count)
    return unposted, failed


async def _find_refused(database: Database, *, accounts: Collection[str]) -> list[FailedInvoice]:
    """Return those of some accounts whose money cannot be rounded; the others get their invoice."""
    async with database.snapshot() as session:
        currencies = await find_currencies(session, accounts=accounts)
    refused = [
        FailedInvoice(account=account, reason=UnknownCurrency(currencies[account]).detail)
        for account in accounts
        if not is_known(currencies[account])
    ]
    for each in refused:
        log.error("invoice_failed", account=each.account, reason=each.reason)
    return refused


async def _chunks(usage: AsyncIterator[Usage]) -> AsyncGenerator[dict[str, list[Usage]]]:
    """Yield usage by account, of some accounts at a time."""
    chunk: dict[str, list[Usage]] = {}
    async for part in usage:
        if part.account not in chunk and len(chunk) == ACCOUNTS_AT_ONCE:
            yield chunk
            chunk = {}
        chunk.setdefault(part.account, []).append(part)
    if chunk:
        yield chunk


def _issued(id: str, number: str, account: str, currency: str, *total: Any) -> IssuedInvoice:
    return IssuedInvoice(
        id=id,
        number=number,
        account=account,
        currency=currency,
        total=format_amount(amounts.join(*total)),
    )
