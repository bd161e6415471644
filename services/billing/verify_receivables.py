"""Verify what is owed: invoices, credits and credit notes against what the ledger posted."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, and_, or_, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing import amounts
from services.billing.amounts import Exact, differing, exact, labelled
from services.billing.corrections.models import CreditNote
from services.billing.currencies import minor_unit
from services.billing.invoices.digests import row_digest
from services.billing.invoices.issuing import rest_id
from services.billing.invoices.making import (
    PREPAID,
    RETURNED,
    Credit,
    PendingCredit,
    shown_credits,
)
from services.billing.invoices.models import AccountCredit, Invoice
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.schemas import InvoiceBody
from services.billing.invoices.shares import LineKey, line_shares
from services.billing.models import LedgerEntry, LedgerPosting, Plan, Price, UsageMonth
from services.common.contracts import format_amount, parse_amount

_INVOICES_AT_ONCE = 500
_POSTED = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)


async def verify_receivables(connection: AsyncConnection) -> list[str]:
    """Return a sentence for each difference."""
    return [
        *await _unchanged(connection),
        *await _invoices(connection),
        *await _accounts(connection),
    ]


async def _unchanged(connection: AsyncConnection) -> list[str]:
    """Check the digest of each credit, one at a time; the version before stores none."""
    columns = AccountCredit.__table__.columns
    differences: list[str] = []
    found = await connection.stream(select(*columns).order_by(AccountCredit.id))
    async for row in found.mappings():
        credit = {column.key: row[column.key] for column in columns}
        if credit["digest"] not in (None, row_digest(credit)):
            differences.append(f"invoices: credit {credit['id']}: has been changed")
    return differences


# -- each invoice: its credits, and its part of an entry -------------------------------------------


class _Moved(NamedTuple):
    """What issuing invoices posted as tax, as rounding, and as monthly fees."""

    tax: int = 0
    rounding: int = 0
    revenue: int = 0


async def _invoices(connection: AsyncConnection) -> list[str]:
    """Check the credits of invoices, and the fees, tax and rounding of their entries."""
    differences: list[str] = []
    expected: dict[int | None, _Moved] = {}
    uncertain: set[int | None] = set()
    prepaid = await _prepaid_prices(connection)
    async for page in _pages(connection):
        used = await _credits_of(connection, page)
        for invoice in page:
            body = InvoiceBody.model_validate(invoice.document)
            rows = used[invoice.id]
            if any(credit.digest is None for credit in rows.values()):
                uncertain.add(invoice.entry_id)  # the version before rounds them in another way
                continue
            credits = _recompute(invoice, body, rows)
            if not _agree(invoice, body, credits, rows):
                differences.append(f"invoices: {invoice.number}: differs from the credits it used")
            before = expected.get(invoice.entry_id, _Moved())
            moved = _moved(body, credits, prepaid=prepaid)
            expected[invoice.entry_id] = _Moved(*map(sum, zip(before, moved, strict=True)))
    posted = await _posted(connection)
    differences += [
        f"invoices: entry {entry} of the ledger: fees, tax or rounding differ from its invoices"
        for entry, moved in expected.items()
        if entry not in uncertain and moved != posted.get(entry, _Moved())
    ]
    return differences


async def _prepaid_prices(connection: AsyncConnection) -> set[str]:
    found = await connection.execute(
        select(Price.id).join(Plan, Plan.id == Price.plan_id).where(Plan.billing == "prepaid")
    )
    return set(found.scalars())


async def _pages(connection: AsyncConnection) -> AsyncIterator[Sequence[Row[Any]]]:
    """Yield all invoices, some at a time."""
    last = ""
    while True:
        found = await connection.execute(
            select(
                Invoice.id,
                Invoice.number,
                Invoice.account,
                Invoice.period,
                Invoice.entry_id,
                Invoice.document,
            )
            .where(Invoice.id > last)
            .order_by(Invoice.id)
            .limit(_INVOICES_AT_ONCE)
        )
        page = found.all()
        if not page:
            return
        yield page
        last = page[-1].id


async def _credits_of(
    connection: AsyncConnection, page: Sequence[Row[Any]]
) -> dict[str, dict[str, Row[Any]]]:
    """Return the credits that each invoice has used or left, oldest first, by their id."""
    ids = [invoice.id for invoice in page]
    accounts = {invoice.account for invoice in page}
    found = await connection.execute(
        select(*AccountCredit.__table__.columns)
        .where(
            AccountCredit.account.in_(sorted(accounts)),
            or_(AccountCredit.invoice_id.in_(ids), AccountCredit.cause.in_(ids)),
        )
        .order_by(AccountCredit.created_at, AccountCredit.id)
    )
    used: dict[str, dict[str, Row[Any]]] = {each: {} for each in ids}
    for row in found:
        for invoice_id in {row.invoice_id, row.cause} & used.keys():
            used[invoice_id][row.id] = row
    return used


def _recompute(invoice: Row[Any], body: InvoiceBody, rows: Mapping[str, Row[Any]]) -> list[Credit]:
    """Return the credits that an invoice used, as it was made."""
    unit = minor_unit(body.currency)
    rate = AppliedTax(rate=body.tax.rate, reason="")
    shares = line_shares(
        [(parse_amount(line.amount), parse_amount(line.rounded)) for line in body.lines],
        rate=rate.fraction,
        unit=unit,
    )
    keys = [LineKey(line.model or "", line.price_id) for line in body.lines]
    pending = [
        PendingCredit(
            row.id,
            row.reason,
            amounts.join(row.amount_high, row.amount),
            row.includes_tax,
            LineKey(row.model, row.price_id) if row.period == body.period else None,
        )
        for row in rows.values()
        if row.invoice_id == invoice.id
    ]
    returned = [
        Credit(each.id, each.reason, 0, tax := parse_amount(each.amount), tax)
        for each in body.credits
        if each.id == RETURNED
    ]
    return returned + shown_credits(
        pending, shares=dict(zip(keys, shares, strict=True)), rate=rate, unit=unit
    )


def _agree(
    invoice: Row[Any], body: InvoiceBody, credits: Sequence[Credit], rows: Mapping[str, Row[Any]]
) -> bool:
    """Return whether an invoice shows the credits it used, except for what it left of them."""
    shown = Counter({each.id: parse_amount(each.amount) for each in body.credits})
    del shown[PREPAID]
    for credit in credits:
        rest = rows.get(rest_id(credit.id, invoice.id))
        left = 0 if rest is None else amounts.join(rest.amount_high, rest.amount)
        if shown.pop(credit.id, 0) + left != credit.amount:
            return False
    return not shown


def _moved(body: InvoiceBody, credits: Sequence[Credit], *, prepaid: set[str]) -> _Moved:
    """Return what issuing an invoice posts; see `invoice_postings`."""
    new = [credit for credit in credits if credit.is_taxed_now]
    tax = parse_amount(body.tax.amount) - sum(credit.tax for credit in new)
    more = sum(
        parse_amount(line.rounded) - parse_amount(line.amount)
        for line in body.lines
        if line.price_id not in prepaid
    )
    more -= sum(credit.amount - credit.tax - credit.net for credit in new)
    fees = sum(parse_amount(line.amount) for line in body.lines if line.kind == "monthly_fee")
    return _Moved(-tax, -more, -fees)


async def _posted(connection: AsyncConnection) -> dict[int | None, _Moved]:
    found = await connection.execute(
        select(LedgerEntry.id, LedgerPosting.ledger, *_POSTED.total().named("amount"))
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.kind == "invoice", LedgerPosting.ledger.in_(_Moved._fields))
        .group_by(LedgerEntry.id, LedgerPosting.ledger)
    )
    posted: defaultdict[int | None, _Moved] = defaultdict(_Moved)
    for row in found:
        change = {row.ledger: labelled(row, "amount").value()}
        posted[row.id] = posted[row.id]._replace(**change)
    return posted


# -- each account: what it owes --------------------------------------------------------------------


async def _accounts(connection: AsyncConnection) -> list[str]:
    """Check that an account owes its invoices and what is not invoiced yet, less what it is given.

    That is: invoices, less their credit notes, plus postpaid usage without an invoice, less credits
    that no invoice has used.
    """
    found = await connection.execute(_account_differences())
    more = {row.account: labelled(row, "amount").value() for row in found}
    noted = await _reduced_by_notes(connection)
    return [
        f"receivables: account {account}: the ledger differs by "
        f"{format_amount(difference)} from invoices, credits and usage"
        for account in sorted(more.keys() | noted.keys())
        if (difference := more.get(account, 0) + noted.get(account, 0))
    ]


@cache
def _account_differences() -> Select[Any]:
    months = UsageMonth
    used = exact(months.amount_low, high=months.amount_high)
    of_month = and_(Invoice.account == months.account, Invoice.period == months.period)
    uninvoiced = (
        _part(months.account, used.minus())
        .join(Price, Price.id == months.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .outerjoin(Invoice, of_month)
        .where(Plan.billing == "postpaid", Invoice.id.is_(None))
    )
    given = exact(AccountCredit.amount_low, high=AccountCredit.amount_high)
    both = union_all(
        _part(LedgerPosting.account, _POSTED).where(LedgerPosting.ledger == "receivable"),
        _part(Invoice.account, exact(Invoice.total_low, high=Invoice.total_high).minus()),
        uninvoiced,
        _part(AccountCredit.account, given).where(AccountCredit.invoice_id.is_(None)),
    ).subquery()
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(both.c.account, *total).group_by(both.c.account).subquery()
    return differing(sums, "amount").order_by(text("account"))


def _part(account: Any, amount: Exact) -> Select[Any]:
    return select(account.label("account"), *amount.named("amount"))


async def _reduced_by_notes(connection: AsyncConnection) -> Counter[str]:
    """Return by how much credit notes have reduced what accounts owe: each invoice first of all."""
    found = await connection.execute(
        select(
            Invoice.id,
            Invoice.account,
            Invoice.total_high,
            Invoice.total_low,
            CreditNote.amount_high,
            CreditNote.amount_low,
        ).join(CreditNote, CreditNote.invoice_id == Invoice.id)
    )
    totals: dict[tuple[str, str], int] = {}
    noted: Counter[tuple[str, str]] = Counter()
    for invoice_id, account, high, low, note_high, note_low in found:
        totals[account, invoice_id] = amounts.join(high, low)
        noted[account, invoice_id] += amounts.join(note_high, note_low)
    reduced: Counter[str] = Counter()
    for key, total in totals.items():
        reduced[key[0]] += min(total, noted[key])
    return reduced
