"""Issuing: drafts of accounts, made into invoices with numbers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.amounts import split
from services.billing.invoices import repository
from services.billing.invoices.making import (
    STANDING,
    Draft,
    Usage,
    as_body,
    invoice_postings,
    line_values,
    make_draft,
)
from services.billing.invoices.models import BillingProfile
from services.billing.invoices.parties import Party, TaxRule, find_tax
from services.billing.invoices.reversals import find_reversed
from services.billing.ledger.accounts import find_currencies, fix_currencies, lock_money
from services.billing.ledger.entries import Posting, make_entry
from services.billing.ledger.posting import post
from services.billing.plans.fees import find_fees
from services.billing.plans.service import read_price_book

_INVOICES = UUID("3d0e7f0b-7a5c-4f6e-8f43-9f5b7a4c2d11")
"""The namespace of invoice ids: an account has one invoice of a month."""


class Books(NamedTuple):
    """Who sells, and the tax rules."""

    seller: Party
    tax_rules: Sequence[TaxRule]

    def series(self, kind: str) -> str:
        """Return the number series of a kind of document: each seller has its own."""
        identity = f"{self.seller.name}\n{self.seller.vat_id or ''}"
        return f"{kind}:{blake2b(identity.encode(), digest_size=16).hexdigest()}"


def invoice_id(account: str, period: str) -> str:
    """Return the id of an account's invoice of a month."""
    return str(uuid5(_INVOICES, f"{account} {period}"))


async def make_drafts(
    session: AsyncSession,
    usage: Mapping[str, Sequence[Usage]],
    *,
    period: str,
    books: Books,
    lock: bool = False,
) -> list[Draft]:
    """Return the invoices of accounts as they would be now, from their usage and fees of a month.

    Args:
        usage: of each account; without any, the account owes a fee.
        lock: whether to lock the credits that they use, until the transaction ends.
    """
    accounts = list(usage)
    named = {part.price_id for parts in usage.values() for part in parts}
    book = await read_price_book(session, accounts=(), price_ids=named, default_plan=None)
    currencies = await find_currencies(session, accounts=accounts)
    fees = await find_fees(session, accounts=accounts, period=period, currencies=currencies)
    profiles = await repository.find_profiles(session, accounts=accounts)
    credits = await repository.find_credits(session, accounts=accounts, period=period, lock=lock)
    reversed_sums = await find_reversed(session, accounts=accounts, period=period)
    drafts: list[Draft] = []
    for account, parts in usage.items():
        buyer = as_party(account, profiles.get(account))
        drafts.append(
            make_draft(
                parts,
                account=account,
                period=period,
                currency=currencies.get(account) or fees[account][0].plan.currency,
                prices=book.prices,
                seller=books.seller,
                buyer=buyer,
                rate=find_tax(books.tax_rules, seller=books.seller, buyer=buyer),
                credits=credits.get(account, ()),
                taken_back={
                    line: taken.amount for line, taken in reversed_sums.get(account, {}).items()
                },
                fees=fees.get(account, ()),
            )
        )
    return drafts


def as_party(account: str, profile: BillingProfile | None) -> Party:
    """Return an account as an invoice names it: by its profile, or else by its id."""
    if profile is None:
        return Party(name=account)
    return Party(
        name=profile.name,
        address=profile.address,
        country=profile.country,
        vat_id=profile.vat_id,
        email=profile.email,
    )


async def issue(
    session: AsyncSession,
    usage: Mapping[str, Sequence[Usage]],
    *,
    period: str,
    books: Books,
    now: datetime,
) -> int:
    """Issue the invoices of some accounts, except those that have theirs; return how many.

    Locks are taken in the order of corrections: the accounts, so that none of their usage is taken
    back meanwhile, then the numbers, so that runs at the same time wait for each other.
    """
    await lock_money(session, accounts=usage.keys(), journals=())
    series = books.series("invoice")
    last = await repository.lock_series(session, series=series)
    done = await repository.find_invoiced(session, accounts=usage.keys(), period=period)
    due = {account: parts for account, parts in usage.items() if account not in done}
    if not due:
        return 0
    drafts = await make_drafts(session, due, period=period, books=books, lock=True)
    entries = await _post(session, drafts, period=period, now=now)
    invoices: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for draft in drafts:
        last += 1
        new_id = invoice_id(draft.account, period)
        mine = [
            {"invoice_id": new_id, **line_values(line, number)}
            for number, line in enumerate(draft.lines)
        ]
        row = _row(draft, invoice_id=new_id, series=series, sequence=last, now=now)
        row["entry_id"] = entries[draft.currency]
        row["digest"] = digest(row, mine)
        invoices.append(row)
        lines += mine
        await _use_credits(session, draft, invoice_id=new_id, now=now)
    await repository.add_invoices(session, rows=invoices)
    await repository.add_lines(session, rows=lines)
    await repository.store_last(session, series=series, last=last)
    return len(invoices)


async def issue_fees(
    session: AsyncSession,
    *,
    accounts: Collection[str],
    period: str,
    books: Books,
    now: datetime,
) -> int:
    """Issue the invoices of accounts that owe a fee and used nothing; return how many.

    Accounts that have their invoice, or owe no fee, are left out.
    """
    done = await repository.find_invoiced(session, accounts=accounts, period=period)
    due = set(accounts) - done
    currencies = await find_currencies(session, accounts=due)
    fees = await find_fees(session, accounts=due, period=period, currencies=currencies)
    charged = {account: each[0].plan.currency for account, each in fees.items()}
    await fix_currencies(session, currencies=charged, now=now)
    usage: dict[str, Sequence[Usage]] = {account: () for account in sorted(charged)}
    return await issue(session, usage, period=period, books=books, now=now)


async def _post(
    session: AsyncSession, drafts: Sequence[Draft], *, period: str, now: datetime
) -> dict[str, int | None]:
    """Post the invoices of one transaction, as one entry per currency; return their ids."""
    postings: dict[str, list[Posting]] = {}
    for draft in drafts:
        postings.setdefault(draft.currency, []).extend(invoice_postings(draft))
    return {
        currency: await post(
            session,
            make_entry("invoice", currency=currency, reference=period, postings=moved, now=now),
        )
        for currency, moved in sorted(postings.items())
    }


def _row(
    draft: Draft, *, invoice_id: str, series: str, sequence: int, now: datetime
) -> dict[str, Any]:
    high, low = split(draft.total)
    return {
        "id": invoice_id,
        "series": series,
        "sequence": sequence,
        "number": f"INV-{sequence:06d}",
        "account": draft.account,
        "period": draft.period,
        "currency": draft.currency,
        "total_high": high,
        "total": low,
        "issued_at": now,
        "document": as_body(draft).model_dump(mode="json"),
    }


def digest(row: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of an invoice: of its row and its lines, in order.

    Args:
        row: all columns, with or without `digest`.
        lines: all columns, with `amount` and `rounded` as whole integers.
    """
    content = {str(name): value for name, value in row.items() if name != "digest"}
    content["issued_at"] = content["issued_at"].isoformat()
    content["lines"] = [{**_plain(line), **_as_text(line)} for line in lines]
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return blake2b(canonical, digest_size=16).hexdigest()


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns by plain names; SQLAlchemy quotes some."""
    return {str(name): value for name, value in line.items()}


def _as_text(line: Mapping[str, Any]) -> dict[str, str]:
    """Return amounts as text: they may exceed 64 bits."""
    return {name: str(line[name]) for name in ("amount", "rounded")}


async def _use_credits(
    session: AsyncSession, draft: Draft, *, invoice_id: str, now: datetime
) -> None:
    """Mark the credits that reduced an invoice; what is left of one waits for the next."""
    ids = [credit.id for credit in draft.applied if credit.id not in STANDING]
    if not ids:
        return
    await repository.use_credits(session, ids=ids, invoice_id=invoice_id)
    await repository.add_credits(
        session,
        rows=[
            {
                "id": rest_id(credit.id, invoice_id),
                "account": draft.account,
                "currency": draft.currency,
                "cause": invoice_id,
                "model": "",
                "price_id": "",
                "reason": credit.reason,
                "amount": credit.rest,
                "includes_tax": True,
                "period": None,
                "created_at": now,
            }
            for credit in draft.applied
            if credit.rest
        ],
    )


def rest_id(credit_id: str, invoice_id: str) -> str:
    """Return the id of the credit that is left of one that was larger than an invoice."""
    return str(uuid5(_INVOICES, f"rest {credit_id} {invoice_id}"))
