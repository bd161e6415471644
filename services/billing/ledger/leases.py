"""Leases: the terms under which processes serve accounts, and their share of prepaid credit."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.ledger import repository
from services.billing.ledger.accounts import fix_currencies
from services.billing.ledger.granting import (
    STALE_AFTER,
    AllProcesses,
    Grants,
    Outcome,
    grant,
    outcome,
)
from services.billing.ledger.terms import find_terms, without_plan
from services.billing.sources.service import find_closed, find_stale, record_heartbeat
from services.common.contracts import LeaseRequest, LeaseTerms, RateShare, format_amount
from services.common.db.database import Database
from services.common.db.retrying import in_transaction

SHARED_FOR = timedelta(seconds=30)
"""A process without a lease request for this long leaves its share of a rate limit to others."""


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
        stale = await find_stale(session, journals=journals, since=now - STALE_AFTER)
    if stale:  # before anything is granted, so that no journal in use is declared lost
        await in_transaction(
            database, lambda session: record_heartbeat(session, journals=stale, now=now)
        )
    terms = await _fix_currencies(database, terms, fixed=fixed, now=now)

    moving = [
        (request, given)
        for request, given in zip(requests, terms, strict=True)
        if request.release or given.billing == "prepaid" or given.rate_limit is not None
    ]
    if moving:
        prepaid = {given.account for given in terms if given.billing == "prepaid"}
        limited = {given.account for given in terms if given.rate_limit is not None}
        outcomes = await in_transaction(
            database,
            lambda session: _grant(
                session,
                requests=[request for request, _ in moving],
                prepaid=prepaid,
                limited=limited,
                now=now,
            ),
        )
        for (_, given), result in zip(moving, outcomes, strict=True):
            _complete(given, result)
    return terms


async def _fix_currencies(
    database: Database, terms: list[LeaseTerms], *, fixed: Mapping[str, str], now: datetime
) -> list[LeaseTerms]:
    """Fix the currencies of postpaid accounts; return the terms under which they may be served.

    What is served under these terms must be chargeable, even if the plan changes meanwhile. If
    another currency has been fixed since the terms were read, only that account is refused.

    Args:
        fixed: the currencies of the accounts that had one.
    """
    unfixed = {
        given.account: given.currency
        for given in terms
        if given.billing == "postpaid" and given.currency and given.account not in fixed
    }
    if not unfixed:
        return terms
    others = await in_transaction(
        database, lambda session: fix_currencies(session, currencies=unfixed, now=now)
    )
    return [without_plan(given.account) if given.account in others else given for given in terms]


async def _grant(
    session: AsyncSession,
    *,
    requests: Sequence[LeaseRequest],
    prepaid: Set[str],
    limited: Set[str],
    now: datetime,
) -> list[Outcome]:
    """Grant what lease requests ask for; return their outcomes, in order.

    Args:
        prepaid: the accounts on a prepaid plan, which get grants.
        limited: the accounts with a rate limit, of which each process gets a share.
    """
    journals = {request.journal for request in requests}
    money = await repository.lock_money(
        session, accounts={request.account for request in requests}, journals=journals
    )
    # After the lock: a reservation that was not found may just have been deleted, and a new one
    # would not know what the deleted one had settled.
    closed = await find_closed(session, journals=journals)
    grants = grant(requests, money=money, closed=closed, prepaid=prepaid)
    await _write(session, grants, now=now)
    # These two see what was written. Only the outcome of an account that lacks credit depends on
    # other processes.
    reserved = await repository.find_reserved_credit(session, accounts=grants.lacking)
    demand = await repository.sum_demand(
        session, accounts=limited, requested_after=now - SHARED_FOR
    )
    return [
        outcome(
            turn,
            everyone=AllProcesses(
                reserved.get(turn.request.account, ()), demand.get(turn.request.account, 0.0)
            ),
            moved_since=grants.moved[turn.request.account] - turn.moved,
            now=now,
        )
        for turn in grants.turns
    ]


async def _write(session: AsyncSession, grants: Grants, *, now: datetime) -> None:
    known = grants.changes.keys()
    changed = grants.reservations.values()
    await repository.put_requests(
        session, reservations=[each for each in changed if each.account in known], now=now
    )
    await repository.put_requests(
        session,
        reservations=[each for each in changed if each.account not in known],
        now=now,
        with_money=False,
    )
    await repository.add_available(session, changes=grants.changes, now=now)


def _complete(terms: LeaseTerms, result: Outcome) -> None:
    """Add the outcome of a lease request to its terms."""
    if terms.billing == "prepaid":
        terms.status, terms.granted = result.status, format_amount(result.granted)
        terms.retry_after = result.retry_after_s
    if terms.rate_limit is not None:
        terms.rate_limit = RateShare(
            per_second=terms.rate_limit.per_second * result.share,
            burst=max(1.0, terms.rate_limit.burst * result.share),
        )
