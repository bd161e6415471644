"""All SQL about invoices, except the usage that they bill: numbers, credits, content."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    insert,
    inspect,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.amounts import columns, split
from services.billing.bulk_insert import insert_rows, table_of, upsert
from services.billing.invoices.digests import row_digest
from services.billing.invoices.making import PendingCredit
from services.billing.invoices.models import (
    AccountCredit,
    BillingProfile,
    Invoice,
    InvoiceLine,
    NumberSeries,
    ReversedLine,
)
from services.billing.invoices.shares import LineKey
from services.billing.models import Period

# -- months --------------------------------------------------------------------------------------


async def find_period(session: AsyncSession, *, period: str) -> Period | None:
    """Return a month, if anything happened in it."""
    return await session.get(Period, period)


async def mark_invoiced(session: AsyncSession, *, period: str, now: datetime) -> None:
    """Record that all invoices of a month are issued."""
    done = update(Period).where(Period.id == period, Period.invoiced_at.is_(None))
    await session.execute(done.values(invoiced_at=now))


# -- issuing -------------------------------------------------------------------------------------


async def lock_series(session: AsyncSession, *, series: str) -> int:
    """Lock a series until the transaction ends; return its last number, 0 if it is new."""
    await upsert(session, NumberSeries, [{"id": series, "last": 0}])
    row = await session.get_one(NumberSeries, series, with_for_update=True, populate_existing=True)
    return row.last


async def store_last(session: AsyncSession, *, series: str, last: int) -> None:
    """Store the last number of a locked series."""
    await session.execute(update(NumberSeries).where(NumberSeries.id == series).values(last=last))


async def find_invoiced(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> set[str]:
    """Return those of some accounts that have an invoice of a month."""
    found = select(Invoice.account).where(
        Invoice.account.in_(sorted(accounts)), Invoice.period == period
    )
    return set(await session.scalars(found))


async def find_profiles(
    session: AsyncSession, *, accounts: Collection[str]
) -> dict[str, BillingProfile]:
    """Return the billing profiles of those accounts that have one."""
    found = select(BillingProfile).where(BillingProfile.account.in_(sorted(accounts)))
    return {profile.account: profile for profile in await session.scalars(found)}


async def put_profile(session: AsyncSession, *, values: Mapping[str, Any]) -> None:
    """Store an account's billing profile."""
    await upsert(session, BillingProfile, [values], put=[*(values.keys() - {"account"})])


async def add_invoices(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert invoices."""
    await session.execute(insert(table_of(Invoice)), list(rows))


async def add_lines(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert lines of invoices; `amount` and `rounded` are integers of any size."""
    if rows:
        await insert_rows(
            session,
            insert(table_of(InvoiceLine)),
            [
                {
                    **row,
                    **columns("amount", row["amount"]),
                    **columns("rounded", row["rounded"]),
                }
                for row in rows
            ],
        )


# -- credits that reduce the next invoice --------------------------------------------------------


async def find_credits(
    session: AsyncSession, *, accounts: Collection[str], period: str, lock: bool
) -> dict[str, list[PendingCredit]]:
    """Return the credits that an invoice of a month may use, oldest first, by account.

    Those of a later month wait for its own invoice.

    Args:
        lock: whether to lock them until the transaction ends.
    """
    found = (
        select(AccountCredit)
        .where(
            AccountCredit.account.in_(sorted(accounts)),
            AccountCredit.invoice_id.is_(None),
            AccountCredit.includes_tax
            | AccountCredit.period.is_(None)
            | (AccountCredit.period <= period),
        )
        .order_by(AccountCredit.account, AccountCredit.created_at, AccountCredit.id)
    )
    credits: dict[str, list[PendingCredit]] = {}
    for each in await session.scalars(found.with_for_update() if lock else found):
        line = LineKey(each.model, each.price_id) if each.period == period else None
        pending = PendingCredit(each.id, each.reason, each.amount, each.includes_tax, line)
        credits.setdefault(each.account, []).append(pending)
    return credits


async def list_credits(
    session: AsyncSession, *, account: str, period: str, cause: str
) -> Sequence[AccountCredit]:
    """Return an account's credits for a month's usage, and those that one invoice left."""
    mine = or_(AccountCredit.period == period, AccountCredit.cause == cause)
    found = select(AccountCredit).where(AccountCredit.account == account, mine)
    return (await session.scalars(found.execution_options(populate_existing=True))).all()


async def lock_credit(
    session: AsyncSession,
    *,
    account: str,
    cause: str,
    period: str,
    line: LineKey,
    includes_tax: bool,
) -> AccountCredit | None:
    """Lock the credit of a cause and line that no invoice has used yet."""
    credit: AccountCredit | None = await session.scalar(
        select(AccountCredit)
        .where(
            AccountCredit.account == account,
            AccountCredit.invoice_id.is_(None),
            AccountCredit.cause == cause,
            AccountCredit.period == period,
            AccountCredit.model == line.model,
            AccountCredit.price_id == line.price_id,
            AccountCredit.includes_tax == includes_tax,
        )
        .with_for_update()
    )
    return credit


def grow_credit(credit: AccountCredit, *, amount: int) -> None:
    """Add to a locked credit that no invoice has used yet."""
    credit.amount_high, credit.amount_low = split(credit.amount + amount)
    credit.digest = _digest(credit)


async def use_credits(session: AsyncSession, *, ids: Collection[str], invoice_id: str) -> None:
    """Mark locked credits as used by an invoice."""
    found = await session.scalars(select(AccountCredit).where(AccountCredit.id.in_(sorted(ids))))
    for credit in found:
        credit.invoice_id = invoice_id
        credit.digest = _digest(credit)


def _digest(credit: AccountCredit) -> str:
    parts = inspect(AccountCredit).column_attrs
    return row_digest({part.columns[0].key: getattr(credit, part.key) for part in parts})


async def add_credits(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert credits; `amount` is an integer of any size."""
    if rows:
        stored = [{"invoice_id": None, **row, **columns("amount", row["amount"])} for row in rows]
        await insert_rows(
            session,
            insert(table_of(AccountCredit)),
            [{**row, "digest": row_digest(row)} for row in stored],
        )


# -- sums of what was taken back -----------------------------------------------------------------


async def add_reversed(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to sums of what was taken back; `amount` and `returned` are integers of any size."""
    stored = [
        {**row, **columns("amount", row["amount"]), **columns("returned", row["returned"])}
        for row in rows
    ]
    await upsert(session, ReversedLine, stored, add_amounts=["amount", "returned"])


async def find_reversed(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> Sequence[ReversedLine]:
    """Return what was taken back of some accounts' usage of a month."""
    found = select(ReversedLine).where(
        ReversedLine.account.in_(sorted(accounts)), ReversedLine.period == period
    )
    rows = await session.scalars(found.execution_options(populate_existing=True))
    return rows.all()


# -- reading -------------------------------------------------------------------------------------


async def find_invoice(session: AsyncSession, *, invoice_id: str) -> Invoice | None:
    """Return an invoice by its id."""
    return await session.get(Invoice, invoice_id)


async def find_ids(session: AsyncSession, *, number: str) -> list[str]:
    """Return the ids of the invoices with a number; each seller counts its own."""
    found = await session.scalars(select(Invoice.id).where(Invoice.number == number))
    return list(found)


async def list_invoices(
    session: AsyncSession,
    *,
    account: str,
    before: tuple[str, str] | None,
    limit: int,
) -> Sequence[Invoice]:
    """Return an account's invoices, newest first, starting after a month and id."""
    found = select(Invoice).where(Invoice.account == account)
    if before is not None:
        found = found.where(tuple_(Invoice.period, Invoice.id) < before)
    newest_first = (Invoice.period.desc(), Invoice.id.desc())
    return (await session.scalars(found.order_by(*newest_first).limit(limit))).all()


async def list_issued(session: AsyncSession, *, period: str) -> list[Any]:
    """Return id, number, account, currency and total of a month's invoices, by number."""
    found = await session.execute(
        select(
            Invoice.id,
            Invoice.number,
            Invoice.account,
            Invoice.currency,
            Invoice.total_high,
            Invoice.total_low,
        )
        .where(Invoice.period == period)
        .order_by(Invoice.series, Invoice.sequence)
    )
    return list(found)


async def find_numbers(
    session: AsyncSession, *, account: str, periods: Collection[str]
) -> dict[str, str]:
    """Return the numbers of an account's invoices, by month."""
    found = await session.execute(
        select(Invoice.period, Invoice.number).where(
            Invoice.account == account, Invoice.period.in_(sorted(periods))
        )
    )
    return {period: number for period, number in found}
