"""Credit reservations: how a lease request and an event move credit.

Pure arithmetic in 10⁻⁹ of the currency unit. Every function preserves an account's balance,
`available + Σ (granted − settled)`, except for what is charged, and keeps
`0 <= settled <= granted`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.common.contracts import MAX_SUM, LeaseRequest


@dataclass(slots=True)
class CreditReservation:
    """What one process run may spend of an account; the fields are columns of the table."""

    account: str
    journal: str
    granted: int = 0
    settled: int = 0
    returned: int = 0
    spent: int = 0
    sequence: int = 0
    demand: float = 0.0

    @property
    def unspent(self) -> int:
        """What the process may still spend, as far as billing knows."""
        used = self.settled if self.settled > self.spent else self.spent
        return self.granted - used if self.granted > used else 0


def apply_request(
    reservation: CreditReservation, request: LeaseRequest, *, available: int, may_grant: bool
) -> int:
    """Release or grant what a lease request asks for; return what is available afterwards.

    A background request (`minimum` 0) gets at most half of what is available, so that it does not
    starve other processes, and never lowers `granted`. A request whose minimum cannot be granted
    gives all unspent credit back: if the last credit stayed split among processes, none of them
    could spend it.

    A process that was declared lost and comes back may have spent more than `granted`. The
    difference is granted first, from what is available.

    Args:
        may_grant: False if the account's plan is no longer prepaid.
    """
    if request.release:
        return available + _give_back(reservation, spent=request.spent)
    if not may_grant:
        return available
    missing = max(request.desired, request.minimum) - (reservation.granted - request.spent)
    most = available if request.minimum else (available + 1) // 2
    granted = max(0, min(missing, most))
    reservation.granted += granted
    available -= granted
    if reservation.granted - request.spent < request.minimum:
        available += _give_back(reservation, spent=request.spent)
    return available


def _give_back(reservation: CreditReservation, *, spent: int) -> int:
    kept = max(reservation.settled, min(spent, reservation.granted))
    given_back = reservation.granted - kept
    reservation.granted = kept
    return given_back


def is_enough(granted: int, request: LeaseRequest) -> bool:
    """Return whether the grant covers the request's minimum, and is not empty."""
    return granted - request.spent >= max(request.minimum, 1)


def status(
    granted: int, request: LeaseRequest, *, available: int, elsewhere: int, has_ended: bool
) -> Literal["ok", "no_credit", "reserved_elsewhere"]:
    """Return the outcome of a lease request.

    Args:
        elsewhere: what other processes have reserved of the account and not spent.
        has_ended: the requester's journal is closed, so that only others can get a grant.
    """
    if is_enough(granted, request):
        return "ok"
    if available + elsewhere < max(request.minimum, 1):
        return "no_credit"
    return "reserved_elsewhere" if request.minimum or has_ended else "ok"


def seconds_until(missing: int, *, available: int, returns: Iterable[tuple[int, int]]) -> int:
    """Return in how many seconds an account is expected to have the missing credit.

    Args:
        returns: for each other process, in how many seconds it gives its unspent credit back, and
            how much that is.
    """
    last = 1
    for wait_s, amount in sorted(returns):
        available += amount
        last = wait_s
        if available >= missing:
            break
    return last


@dataclass(frozen=True, slots=True)
class Settled:
    """The effect of settling an event."""

    available: int
    """To be added to what the account has available."""
    late: bool
    """Whether the reservation's credit had been given to others before."""


def settle(reservation: CreditReservation, *, amount: int, charged: bool) -> Settled:
    """Settle an event with a new sequence: its process spent `amount` of the reservation.

    If the reservation has less, because its journal was declared lost, the account pays the rest,
    even below zero.

    Args:
        charged: False for a duplicate or a rejected event, whose amount goes back to the account.
    """
    if not charged and reservation.settled + amount > MAX_SUM:
        amount = reservation.granted - reservation.settled
    lacking = max(0, amount - (reservation.granted - reservation.settled))
    reservation.granted += lacking
    reservation.settled += amount
    if charged:
        return Settled(available=-lacking, late=lacking > 0)
    reservation.returned += amount
    return Settled(available=amount - lacking, late=False)


def charge_elsewhere(reservation: CreditReservation, *, amount: int) -> Settled:
    """Charge an event whose sequence the reservation settled before, under another id."""
    reservation.returned -= amount
    return Settled(available=-amount, late=False)


def reclaim(reservation: CreditReservation) -> int:
    """Take all unsettled credit back, once no more events are expected; return how much it is."""
    reclaimed = reservation.granted - reservation.settled
    reservation.granted = reservation.settled
    return reclaimed
