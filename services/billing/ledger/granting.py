"""Granting: what each lease request of a call gets, without a database or a clock."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple

from services.billing.ledger.reservations import (
    SWEEP_EVERY_S,
    CreditReservation,
    LockedMoney,
    ReservationKey,
    ReservedCredit,
    apply_request,
    is_enough,
    seconds_until,
    status,
)
from services.billing.sources.service import LOST_AFTER
from services.common.contracts import LeaseRequest, LeaseStatus

STALE_AFTER = timedelta(minutes=1)
"""A lease request counts as a heartbeat, recorded if there was none for this long."""


class Turn(NamedTuple):
    """The state right after a lease request was applied."""

    request: LeaseRequest
    reservation: CreditReservation
    available: int
    moved: int
    """By how much the requests up to this one changed the account's unspent reservations."""
    is_closed: bool
    """Whether the request's journal gets no more grants."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What the lease requests of a call change."""

    turns: Sequence[Turn]
    """One for each request, in order."""
    reservations: Mapping[ReservationKey, CreditReservation]
    """Those that changed, as they are after the last request."""
    changes: Mapping[str, int]
    """To be added to what each known account has available."""
    moved: Mapping[str, int]
    """By how much the requests changed each account's unspent reservations."""

    @property
    def lacking(self) -> set[str]:
        """The accounts of which a request got less than it needs."""
        return {
            turn.request.account
            for turn in self.turns
            if not is_enough(turn.reservation.granted, turn.request)
        }


class AllProcesses(NamedTuple):
    """All processes that serve an account, after the last request was applied."""

    reserved: Sequence[ReservedCredit]
    demand: float
    """Σ (demand + 1) over those with a recent lease request."""


class Outcome(NamedTuple):
    """The outcome of one lease request."""

    status: LeaseStatus
    granted: int
    share: float
    """The process's share of the account's rate limit."""
    retry_after_s: int | None
    """When enough credit reserved by other processes is expected back."""


def grant(
    requests: Sequence[LeaseRequest], *, money: LockedMoney, closed: Set[str], prepaid: Set[str]
) -> Grants:
    """Apply lease requests in order.

    A request whose `sequence` is not above the last one of its account and journal changes nothing.

    Args:
        money: that of the requests' accounts and journals.
        closed: the journals that get no more grants and no new reservations.
        prepaid: the accounts on a prepaid plan, which get grants.
    """
    reservations = dict(money.reservations)
    available = {account: funds.available for account, funds in money.funds.items()}
    changed: dict[ReservationKey, CreditReservation] = {}
    moved: Counter[str] = Counter()
    turns: list[Turn] = []
    for request in requests:
        account, key = request.account, ReservationKey(request.account, request.journal)
        is_closed = request.journal in closed
        stored = reservations.get(key)
        mine = stored or CreditReservation(account, request.journal)
        if request.sequence > mine.sequence and (stored or not is_closed):
            applied = apply_request(
                mine,
                request,
                available=available.get(account, 0),
                may_grant=account in prepaid and not is_closed,
            )
            moved[account] += applied.unspent - mine.unspent
            if account in available:  # an unknown account has nothing to grant
                available[account] -= applied.granted - mine.granted
            reservations[key] = changed[key] = mine = applied
        turns.append(Turn(request, mine, available.get(account, 0), moved[account], is_closed))
    return Grants(
        turns=turns,
        reservations=changed,
        changes={
            account: available[account] - money.funds[account].available for account in available
        },
        moved=moved,
    )


def outcome(turn: Turn, *, everyone: AllProcesses, moved_since: int, now: datetime) -> Outcome:
    """Return the outcome of a request.

    Args:
        everyone: all processes of the account after the last request, this one included.
        moved_since: by how much later requests changed the account's unspent reservations.
    """
    granted = turn.reservation.granted
    unspent = sum(each.unspent for each in everyone.reserved)
    result = status(
        granted,
        turn.request,
        available=turn.available,
        elsewhere=unspent - moved_since - turn.reservation.unspent,
        is_closed=turn.is_closed,
    )
    return Outcome(
        status=result,
        granted=granted,
        share=min(1.0, (turn.reservation.demand + 1) / max(everyone.demand, 1.0)),
        retry_after_s=_wait_s(turn, everyone, now=now) if result == "reserved_elsewhere" else None,
    )


def _wait_s(turn: Turn, everyone: AllProcesses, *, now: datetime) -> int:
    """Return in how many seconds the other processes should have given back enough credit."""
    others = [each for each in everyone.reserved if each.journal != turn.request.journal]
    return seconds_until(
        max(turn.request.minimum, 1) - (turn.reservation.granted - turn.request.spent),
        available=turn.available,
        returns=[(_returns_in_s(each, now=now), each.unspent) for each in others],
    )


def _returns_in_s(reserved: ReservedCredit, *, now: datetime) -> int:
    """Return when a process gives its credit back: any moment, or once it is declared lost."""
    silent_for = now - (reserved.heard_at or now)
    if silent_for < STALE_AFTER:
        return 1
    return max(1, ceil((LOST_AFTER - silent_for).total_seconds() + SWEEP_EVERY_S))
