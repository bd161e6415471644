"""Leases: the terms under which processes serve accounts, and their share of prepaid credit."""

from collections import Counter
from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.database import in_transaction
from services.billing.ledger import repository
from services.billing.ledger.accounts import fix_currencies, move_money
from services.billing.ledger.repository import ReservedCredit
from services.billing.ledger.reservations import (
    CreditReservation,
    apply_request,
    is_enough,
    seconds_until,
    status,
)
from services.billing.ledger.sweeper import EVERY_S
from services.billing.ledger.terms import find_terms, without_plan
from services.billing.sources.service import LOST_AFTER, find_stale, record_heartbeat
from services.common.contracts import (
    LeaseRequest,
    LeaseStatus,
    LeaseTerms,
    RateShare,
    format_amount,
)
from services.common.db.database import Database

SHARED_FOR = timedelta(seconds=30)
"""A process without a lease request for this long leaves its share of a rate limit to others."""

_STALE_AFTER = timedelta(minutes=1)
"""A lease request counts as a heartbeat, recorded if there was none for this long."""


async def request_leases(
    database: Database,
    *,
    requests: Sequence[LeaseRequest],
    default_plan: str | None,
    now: datetime,
) -> list[LeaseTerms]:
    """Return the terms of each lease request, in order.

    For postpaid accounts without a rate limit this only reads, once the accounts are known.

    Raises:
        Unavailable: billing may have granted nothing; request again with a higher `sequence`.
    """
    journals = {request.journal for request in requests}
    accounts = [request.account for request in requests]
    async with database.snapshot() as session:
        terms, fixed = await find_terms(
            session, accounts=accounts, default_plan=default_plan, now=now
        )
        stale = await find_stale(session, journals=journals, since=now - _STALE_AFTER)
    if stale:  # before anything is granted, so that no journal in use is declared lost
        await in_transaction(
            database, lambda session: record_heartbeat(session, journals=stale, now=now)
        )

    # What is served under these terms must be chargeable, even if the plan changes meanwhile.
    unfixed = {
        given.account: given.currency
        for given in terms
        if given.billing == "postpaid" and given.currency and given.account not in fixed
    }
    if unfixed:
        others = await in_transaction(
            database, lambda session: fix_currencies(session, currencies=unfixed, now=now)
        )
        # If another currency was fixed meanwhile, only that account's lease is refused.
        terms = [
            without_plan(given.account) if given.account in others else given for given in terms
        ]

    moving = [
        (index, request)
        for index, (request, given) in enumerate(zip(requests, terms, strict=True))
        if request.release or given.billing == "prepaid" or given.rate_limit is not None
    ]
    if moving:
        prepaid = {given.account for given in terms if given.billing == "prepaid"}
        limited = {given.account for given in terms if given.rate_limit is not None}
        grants = await in_transaction(
            database,
            lambda session: _grant(
                session,
                requests=[request for _, request in moving],
                prepaid=prepaid,
                limited=limited,
                now=now,
            ),
        )
        for (index, _), grant in zip(moving, grants, strict=True):
            _complete(terms[index], grant)
    return terms


class _Turn(NamedTuple):
    """The state right after a lease request was applied."""

    request: LeaseRequest
    granted: int
    unspent: int
    demand: float
    available: int
    moved: int
    """By how much the requests up to this one changed the account's unspent reservations."""
    has_ended: bool
    """Whether the request's journal gets no more grants."""


class _Grant(NamedTuple):
    """The outcome of one lease request."""

    status: LeaseStatus
    granted: int
    share: float
    """The process's share of the account's rate limit."""
    retry_after_s: int | None
    """When enough credit reserved by other processes is expected back."""


class _AllProcesses(NamedTuple):
    """All processes that serve an account, after the last request was applied."""

    reserved: Sequence[ReservedCredit]
    demand: float
    """Σ (demand + 1) over those with a recent lease request."""


async def _grant(
    session: AsyncSession,
    *,
    requests: Sequence[LeaseRequest],
    prepaid: Set[str],
    limited: Set[str],
    now: datetime,
) -> list[_Grant]:
    """Apply lease requests in order.

    Args:
        prepaid: the accounts on a prepaid plan, which get grants.
        limited: the accounts with a rate limit, of which each process gets a share.
    """
    accounts = {request.account for request in requests}
    journals = {request.journal for request in requests}
    before, reservations = await repository.lock_reservations(
        session, accounts=accounts, journals=journals
    )
    available = dict(before)
    ended = await repository.find_ended(session, journals=journals)
    changed: dict[repository.ReservationKey, CreditReservation] = {}
    moved: Counter[str] = Counter()
    turns: list[_Turn] = []
    for request in requests:
        account, key = request.account, (request.account, request.journal)
        has_ended = request.journal in ended
        mine = reservations.get(key) or CreditReservation(*key)
        money = available.get(account, 0)
        if request.sequence > mine.sequence and not (has_ended and key not in reservations):
            reservations[key] = mine
            unspent = mine.unspent
            may_grant = account in prepaid and not has_ended
            money = apply_request(mine, request, available=money, may_grant=may_grant)
            mine.spent, mine.sequence, mine.demand = (
                request.spent,
                request.sequence,
                request.demand,
            )
            moved[account] += mine.unspent - unspent
            changed[key] = mine
        if account in available:
            available[account] = money
        turns.append(
            _Turn(
                request, mine.granted, mine.unspent, mine.demand, money, moved[account], has_ended
            )
        )
    known = [each for each in changed.values() if each.account in available]
    unknown = [each for each in changed.values() if each.account not in available]
    await repository.put_requests(session, reservations=known, now=now)
    await repository.put_requests(session, reservations=unknown, now=now, with_money=False)
    changes = {account: available[account] - before[account] for account in available}
    await move_money(session, changes=changes, now=now)

    # Only these depend on other processes; a request that got its minimum does not.
    lacking = {turn.request.account for turn in turns if not is_enough(turn.granted, turn.request)}
    reserved = await repository.find_reserved_credit(session, accounts=lacking)
    demand = await repository.sum_demand(
        session, accounts=limited, requested_after=now - SHARED_FOR
    )
    return [
        _outcome(
            turn,
            everyone=_AllProcesses(
                reserved.get(turn.request.account, ()), demand.get(turn.request.account, 0.0)
            ),
            moved_since=moved[turn.request.account] - turn.moved,
            now=now,
        )
        for turn in turns
    ]


def _outcome(turn: _Turn, *, everyone: _AllProcesses, moved_since: int, now: datetime) -> _Grant:
    """Return the outcome of a request.

    Args:
        everyone: all processes of the account after the last request, this one included.
        moved_since: by how much later requests changed the account's unspent reservations.
    """
    unspent = sum(each.unspent for each in everyone.reserved)
    outcome = status(
        turn.granted,
        turn.request,
        available=turn.available,
        elsewhere=unspent - moved_since - turn.unspent,
        has_ended=turn.has_ended,
    )
    return _Grant(
        status=outcome,
        granted=turn.granted,
        share=min(1.0, (turn.demand + 1) / max(everyone.demand, 1.0)),
        retry_after_s=(
            _wait_s(turn, everyone, now=now) if outcome == "reserved_elsewhere" else None
        ),
    )


def _wait_s(turn: _Turn, everyone: _AllProcesses, *, now: datetime) -> int:
    """Return in how many seconds the other processes should have given back enough credit."""
    others = [each for each in everyone.reserved if each.journal != turn.request.journal]
    return seconds_until(
        max(turn.request.minimum, 1) - (turn.granted - turn.request.spent),
        available=turn.available,
        returns=[(_returns_in_s(each, now=now), each.unspent) for each in others],
    )


def _returns_in_s(reserved: ReservedCredit, *, now: datetime) -> int:
    """Return when a process gives its credit back: any moment, or once it is declared lost."""
    silent_for = now - (reserved.heard_at or now)
    if silent_for < _STALE_AFTER:
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
