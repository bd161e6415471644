"""Leases: how prepaid money is parcelled out to the processes that let it be spent."""

from collections import Counter
from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import fix_currencies, move_money
from services.billing.database import in_transaction
from services.billing.leases import repository
from services.billing.leases.repository import Reservation
from services.billing.leases.slices import Slice, answer_ask, is_enough, seconds_until, status
from services.billing.leases.sweeper import EVERY_S
from services.billing.leases.terms import find_terms, without_plan
from services.billing.sources.service import LOST_AFTER, find_silent, hear
from services.common.contracts import LeaseAsk, LeaseStatus, LeaseTerms, RateShare, format_amount
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
        terms, fixed = await find_terms(
            session, accounts=accounts, default_plan=default_plan, now=now
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
        others = await in_transaction(
            database, lambda session: fix_currencies(session, currencies=unfixed, now=now)
        )
        # Another currency was fixed meanwhile; the other accounts of the call are not held up.
        terms = [
            without_plan(given.account) if given.account in others else given for given in terms
        ]

    moving = [
        (index, ask)
        for index, (ask, given) in enumerate(zip(asks, terms, strict=True))
        if ask.release or given.billing == "prepaid" or given.rate_limit is not None
    ]
    if moving:
        prepaid = {given.account for given in terms if given.billing == "prepaid"}
        limited = {given.account for given in terms if given.rate_limit is not None}
        grants = await in_transaction(
            database,
            lambda session: _grant(
                session,
                asks=[ask for _, ask in moving],
                prepaid=prepaid,
                limited=limited,
                now=now,
            ),
        )
        for (index, _), grant in zip(moving, grants, strict=True):
            _complete(terms[index], grant)
    return terms


class _Turn(NamedTuple):
    """How things stood when an ask had had its turn."""

    ask: LeaseAsk
    granted: int
    unspent: int
    demand: float
    available: int
    moved: int
    """By how much the asks up to this one had changed what is unspent of the account."""
    has_ended: bool
    """Its journal gets nothing more."""


class _Grant(NamedTuple):
    """What became of one ask."""

    status: LeaseStatus
    granted: int
    share: float
    """Of the account's rate limit."""
    retry_after_s: int | None
    """When enough credit that others have reserved is expected back."""


class _Crowd(NamedTuple):
    """All processes together, after the last turn."""

    reservations: Sequence[Reservation]
    demand: float
    """Σ (demand + 1) over those that asked lately."""


async def _grant(
    session: AsyncSession,
    *,
    asks: Sequence[LeaseAsk],
    prepaid: Set[str],
    limited: Set[str],
    now: datetime,
) -> list[_Grant]:
    """Args: limited: the accounts with a rate limit, of which the processes get shares."""
    accounts = {ask.account for ask in asks}
    journals = {ask.journal for ask in asks}
    before, slices = await repository.lock_slices(session, accounts=accounts, journals=journals)
    available = dict(before)
    ended = await repository.find_ended(session, journals=journals)
    changed: dict[repository.SliceKey, Slice] = {}
    moved: Counter[str] = Counter()
    turns: list[_Turn] = []
    for ask in asks:
        account, key = ask.account, (ask.account, ask.journal)
        has_ended = ask.journal in ended
        held = slices.get(key) or Slice(*key)
        money = available.get(account, 0)
        if ask.ask_no > held.ask_no and not (has_ended and key not in slices):
            slices[key] = held
            unspent = held.unspent
            may_grant = account in prepaid and not has_ended
            money = answer_ask(held, ask, available=money, may_grant=may_grant)
            held.spent, held.ask_no, held.demand = ask.spent, ask.ask_no, ask.demand
            moved[account] += held.unspent - unspent
            changed[key] = held
        if account in available:
            available[account] = money
        turns.append(
            _Turn(ask, held.granted, held.unspent, held.demand, money, moved[account], has_ended)
        )
    known = [held for held in changed.values() if held.account in available]
    unknown = [held for held in changed.values() if held.account not in available]
    await repository.put_asks(session, slices=known, now=now)
    await repository.put_asks(session, slices=unknown, now=now, with_money=False)
    changes = {account: available[account] - before[account] for account in available}
    await move_money(session, changes=changes, now=now)

    # Of the others only these need to know, and one that has its slice seldom does.
    lacking = {turn.ask.account for turn in turns if not is_enough(turn.granted, turn.ask)}
    reservations = await repository.find_reservations(session, accounts=lacking)
    demand = await repository.sum_demand(session, accounts=limited, asked_after=now - SHARED_FOR)
    return [
        _answer(
            turn,
            crowd=_Crowd(reservations.get(turn.ask.account, ()), demand.get(turn.ask.account, 0.0)),
            moved_since=moved[turn.ask.account] - turn.moved,
            now=now,
        )
        for turn in turns
    ]


def _answer(turn: _Turn, *, crowd: _Crowd, moved_since: int, now: datetime) -> _Grant:
    """Args: crowd: all processes as they stand after the last turn, this one among them."""
    unspent = sum(each.unspent for each in crowd.reservations)
    became = status(
        turn.granted,
        turn.ask,
        available=turn.available,
        elsewhere=unspent - moved_since - turn.unspent,
        has_ended=turn.has_ended,
    )
    return _Grant(
        status=became,
        granted=turn.granted,
        share=min(1.0, (turn.demand + 1) / max(crowd.demand, 1.0)),
        retry_after_s=_wait_s(turn, crowd, now=now) if became == "held_elsewhere" else None,
    )


def _wait_s(turn: _Turn, crowd: _Crowd, *, now: datetime) -> int:
    """In how many seconds the others are expected to have given back what an ask lacks."""
    others = [each for each in crowd.reservations if each.journal != turn.ask.journal]
    return seconds_until(
        max(turn.ask.at_least, 1) - (turn.granted - turn.ask.spent),
        available=turn.available,
        returns=[(_returns_in_s(each, now=now), each.unspent) for each in others],
    )


def _returns_in_s(reservation: Reservation, *, now: datetime) -> int:
    """When a process gives back what it has reserved: any moment, or once it is given up."""
    silent_for = now - (reservation.heard_at or now)
    if silent_for < _SILENT_FOR:
        return 1
    return max(1, ceil((LOST_AFTER - silent_for).total_seconds() + EVERY_S))


def _complete(terms: LeaseTerms, grant: _Grant) -> None:
    if terms.billing == "prepaid":
        terms.status, terms.granted = grant.status, format_amount(grant.granted)
        terms.retry_after = grant.retry_after_s
    if terms.rate_limit is not None:
        terms.rate_limit = RateShare(
            per_second=terms.rate_limit.per_second * grant.share,
            burst=max(1.0, terms.rate_limit.burst * grant.share),
        )
