"""Leases: how prepaid money is parcelled out to the processes that let it be spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import (
    find_currencies,
    fix_currencies,
    lock_accounts,
    move_money,
)
from services.billing.database import in_transaction
from services.billing.leases import repository
from services.billing.leases.repository import Crowd
from services.billing.leases.slices import Slice, answer_ask, status
from services.billing.leases.terms import find_terms
from services.billing.sources.service import find_silent, hear
from services.common.contracts import LeaseAsk, LeaseTerms, RateLimit, format_amount
from services.common.db import Database

SHARED_FOR = timedelta(seconds=30)
"""A process that has not asked for so long leaves its share of a rate limit to the others."""

_SILENT_FOR = timedelta(minutes=1)
"""An ask is a sign of life, noted if there was no other for so long."""


async def take_leases(
    database: Database, *, asks: Sequence[LeaseAsk], default_plan: str | None, now: datetime
) -> list[LeaseTerms]:
    """Answer asks, in their order.

    Postpaid accounts without a rate limit are answered by reading alone, once they are known.

    Raises:
        Unavailable: nothing is known to have been granted; ask again, with a higher `ask_no`.
    """
    journals = {ask.journal for ask in asks}
    accounts = [ask.account for ask in asks]
    async with database.snapshot() as session:
        fixed = await find_currencies(session, accounts=accounts)
        terms = await find_terms(
            session, accounts=accounts, currencies=fixed, default_plan=default_plan, now=now
        )
        silent = await find_silent(session, journals=journals, since=now - _SILENT_FOR)
    if silent:  # before anything is granted: a slice must not be given up while it is used
        await in_transaction(database, lambda session: hear(session, journals=silent, now=now))

    # What is answered under these terms must be chargeable, whatever plan comes in the meantime.
    unfixed = {
        given.account: given.currency
        for given in terms
        if given.billing == "postpaid" and given.currency and given.account not in fixed
    }
    if unfixed:
        await in_transaction(
            database, lambda session: fix_currencies(session, currencies=unfixed, now=now)
        )

    moving = [
        (index, ask)
        for index, (ask, given) in enumerate(zip(asks, terms, strict=True))
        if ask.release or given.billing == "prepaid" or given.rate_limit is not None
    ]
    if moving:
        prepaid = {given.account for given in terms if given.billing == "prepaid"}
        grants = await in_transaction(
            database,
            lambda session: _grant(
                session, asks=[ask for _, ask in moving], prepaid=prepaid, now=now
            ),
        )
        for (index, _), grant in zip(moving, grants, strict=True):
            terms[index] = _granted(terms[index], grant)
    return terms


@dataclass(frozen=True, slots=True)
class _Grant:
    """What became of one ask."""

    status: str
    granted: int
    share: float
    """Of the account's rate limit."""


async def _grant(
    session: AsyncSession, *, asks: Sequence[LeaseAsk], prepaid: set[str], now: datetime
) -> list[_Grant]:
    accounts = {ask.account for ask in asks}
    available = {
        account: locked.available
        for account, locked in (await lock_accounts(session, accounts=accounts)).items()
    }
    before = dict(available)
    slices = await repository.find_slices(
        session, accounts=accounts, journals={ask.journal for ask in asks}
    )
    crowds = await repository.find_crowds(session, accounts=accounts, asked_after=now - SHARED_FOR)
    changed: dict[repository.SliceKey, Slice] = {}
    grants: list[_Grant] = []
    for ask in asks:
        account, key = ask.account, (ask.account, ask.journal)
        held = slices.setdefault(key, Slice(account, ask.journal, asked_at=now - SHARED_FOR))
        others = _without(crowds.get(account, Crowd()), held, now=now)
        money = available.get(account, 0)
        if ask.ask_no > held.ask_no:
            money = answer_ask(held, ask, available=money, may_grant=account in prepaid)
            held.spent, held.ask_no = ask.spent, ask.ask_no
            held.demand, held.asked_at = ask.demand, now
            changed[key] = held
        if account in available:
            available[account] = money
        crowds[account] = _with(others, held, now=now)
        grants.append(
            _Grant(
                status=status(held, ask, available=money, elsewhere=others.unspent),
                granted=held.granted,
                share=min(1.0, (held.demand + 1) / max(crowds[account].demand, 1.0)),
            )
        )
    known = [held for held in changed.values() if held.account in available]
    unknown = [held for held in changed.values() if held.account not in available]
    await repository.put_slices(session, slices=known)
    await repository.put_slices(session, slices=unknown, with_money=False)
    await move_money(
        session,
        changes={account: available[account] - before[account] for account in available},
        now=now,
    )
    return grants


def _without(crowd: Crowd, held: Slice, *, now: datetime) -> Crowd:
    return Crowd(crowd.unspent - held.unspent, crowd.demand - _part(held, now=now))


def _with(crowd: Crowd, held: Slice, *, now: datetime) -> Crowd:
    return Crowd(crowd.unspent + held.unspent, crowd.demand + _part(held, now=now))


def _part(held: Slice, *, now: datetime) -> float:
    return held.demand + 1 if held.asked_at > now - SHARED_FOR else 0.0


def _granted(terms: LeaseTerms, grant: _Grant) -> LeaseTerms:
    changes: dict[str, object] = {}
    if terms.billing == "prepaid":
        changes = {"status": grant.status, "granted": format_amount(grant.granted)}
    if terms.rate_limit is not None:
        changes["rate_limit"] = RateLimit(
            per_second=terms.rate_limit.per_second * grant.share,
            burst=max(1.0, terms.rate_limit.burst * grant.share),
        )
    return terms.model_copy(update=changes)
