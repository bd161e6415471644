"""Credit reservations: how a lease request and an event move credit.

Pure arithmetic in 10⁻⁹ of the currency unit. What a reservation is granted comes from what its
account has available, and goes back there. So every function preserves an account's balance,
`available + Σ (granted − settled)`, except for what is charged, and keeps
`0 <= settled <= granted`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

from services.common.contracts import MAX_SUM, LeaseRequest

SWEEP_EVERY_S = 5.0
"""How often the credit of ended processes is reclaimed."""


class ReservationKey(NamedTuple):
    """Whose credit is reserved for which process run."""

    account: str
    journal: str


class CreditReservation(NamedTuple):
    """What one process run may spend of an account; the fields are columns of the table.

    A named tuple rather than a dataclass, because one call creates a thousand.
    """

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


class Funds(NamedTuple):
    """What an account has available, in 10⁻⁹ of its currency."""

    currency: str
    available: int


class LockedMoney(NamedTuple):
    """The money of some accounts; unknown accounts have no funds."""

    funds: dict[str, Funds]
    reservations: dict[ReservationKey, CreditReservation]


class ReservedCredit(NamedTuple):
    """What one process run may still spend of an account, and when it was last heard from."""

    journal: str
    unspent: int
    heard_at: datetime | None


# -- lease requests ------------------------------------------------------------------------------


def apply_request(
    reservation: CreditReservation, request: LeaseRequest, *, available: int, may_grant: bool
) -> CreditReservation:
    """Release or grant what a lease request asks for.

    A background request (`minimum` 0) gets at most half of what is available, so that it does not
    starve other processes, and never lowers `granted`. A request whose minimum cannot be granted
    gives all unspent credit back: if the last credit stayed split among processes, none of them
    could spend it.

    A process that was declared lost and comes back may have spent more than `granted`. The
    difference is granted first, from what is available.

    Args:
        may_grant: False if the account's plan is no longer prepaid or the journal is closed.
    """
    granted, spent = reservation.granted, request.spent
    give_back = request.release
    if may_grant and not request.release:
        missing = max(request.desired, request.minimum) - (granted - spent)
        most = available if request.minimum else (available + 1) // 2
        granted += max(0, min(missing, most))
        give_back = granted - spent < request.minimum
    if give_back:
        granted = max(reservation.settled, min(spent, granted))
    return CreditReservation(
        account=reservation.account,
        journal=reservation.journal,
        granted=granted,
        settled=reservation.settled,
        returned=reservation.returned,
        spent=spent,
        sequence=request.sequence,
        demand=request.demand,
    )


def is_enough(granted: int, request: LeaseRequest) -> bool:
    """Return whether the grant covers the request's minimum, and is not empty."""
    return granted - request.spent >= max(request.minimum, 1)


def status(
    granted: int, request: LeaseRequest, *, available: int, elsewhere: int, is_closed: bool
) -> Literal["ok", "no_credit", "reserved_elsewhere"]:
    """Return the outcome of a lease request.

    Args:
        elsewhere: what other processes have reserved of the account and not spent.
        is_closed: the requester's journal is closed, so that only others can get a grant.
    """
    if is_enough(granted, request):
        return "ok"
    if available + elsewhere < max(request.minimum, 1):
        return "no_credit"
    return "reserved_elsewhere" if request.minimum or is_closed else "ok"


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


# -- events --------------------------------------------------------------------------------------


class Settled(NamedTuple):
    """The effect of settling an event."""

    reservation: CreditReservation | None
    """The reservation afterwards; None if the event was not spent from one."""
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
    unsettled = reservation.granted - reservation.settled
    if not charged and reservation.settled + amount > MAX_SUM:
        amount = unsettled
    lacking = max(0, amount - unsettled)
    after = CreditReservation(
        account=reservation.account,
        journal=reservation.journal,
        granted=reservation.granted + lacking,
        settled=reservation.settled + amount,
        returned=reservation.returned + (0 if charged else amount),
        spent=reservation.spent,
        sequence=reservation.sequence,
        demand=reservation.demand,
    )
    if charged:
        return Settled(after, available=-lacking, late=lacking > 0)
    return Settled(after, available=amount - lacking, late=False)


def charge_elsewhere(reservation: CreditReservation, *, amount: int) -> Settled:
    """Charge an event whose sequence the reservation settled before, under another id."""
    after = reservation._replace(returned=reservation.returned - amount)
    return Settled(after, available=-amount, late=False)


def reclaim(reservation: CreditReservation) -> CreditReservation:
    """Take all unsettled credit back, once no more events are expected."""
    return reservation._replace(granted=reservation.settled)
