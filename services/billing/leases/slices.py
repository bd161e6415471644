"""Slices of prepaid money: how an ask and an event move it. Pure arithmetic in 10⁻⁹ of the unit.

Every function keeps `available + Σ (granted − settled)` of an account, its balance, but for what
is charged, and keeps `0 <= settled <= granted`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.common.contracts import MAX_SUM, LeaseAsk


@dataclass(slots=True)
class Slice:
    """What one process run may spend of an account; the fields are columns of the table."""

    account: str
    journal: str
    granted: int = 0
    settled: int = 0
    returned: int = 0
    spent: int = 0
    ask_no: int = 0
    demand: float = 0.0

    @property
    def unspent(self) -> int:
        """What its process may still spend, as far as is known here."""
        used = self.settled if self.settled > self.spent else self.spent
        return self.granted - used if self.granted > used else 0


def answer_ask(held: Slice, ask: LeaseAsk, *, available: int, may_grant: bool) -> int:
    """Release or grant what an ask wants; returns what the account has available then.

    A background ask (`at_least` 0) gets at most half of what is there, so that it does not starve
    the others, and never lowers `granted`. One that cannot get what it needs gives all back:
    split among processes, the last of the money could be spent by none.

    A process that was given up as lost and comes back has spent more than it holds; that is
    granted first, from what is available.

    Args:
        may_grant: False where the account's plan is no longer prepaid.
    """
    if ask.release:
        return available + _give_back(held, spent=ask.spent)
    if not may_grant:
        return available
    missing = max(ask.want, ask.at_least) - (held.granted - ask.spent)
    most = available if ask.at_least else (available + 1) // 2
    granted = max(0, min(missing, most))
    held.granted += granted
    available -= granted
    if held.granted - ask.spent < ask.at_least:
        available += _give_back(held, spent=ask.spent)
    return available


def _give_back(held: Slice, *, spent: int) -> int:
    kept = max(held.settled, min(spent, held.granted))
    given_back = held.granted - kept
    held.granted = kept
    return given_back


def is_enough(granted: int, ask: LeaseAsk) -> bool:
    """Whether what was granted holds what an ask needs, and something at all."""
    return granted - ask.spent >= max(ask.at_least, 1)


def status(
    granted: int, ask: LeaseAsk, *, available: int, elsewhere: int, has_ended: bool
) -> Literal["ok", "no_credit", "held_elsewhere"]:
    """What became of an ask.

    Args:
        elsewhere: what other processes hold of the account and have not spent.
        has_ended: the asker's journal is closed, so that only others can be granted anything.
    """
    if is_enough(granted, ask):
        return "ok"
    if available + elsewhere < max(ask.at_least, 1):
        return "no_credit"
    return "held_elsewhere" if ask.at_least or has_ended else "ok"


def seconds_until(missing: int, *, available: int, returns: Iterable[tuple[int, int]]) -> int:
    """Return in how many seconds an account is expected to have what an ask lacks.

    Args:
        returns: after how many seconds each other process gives back what it has not spent, and
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
    """What settling an event changed."""

    available: int
    """To be added to what the account has available."""
    late: bool
    """The money of its slice had been given to others already."""


def settle(held: Slice, *, amount: int, charged: bool) -> Settled:
    """Settle an event whose number is new: its process has spent `amount` of its slice.

    What a slice lacks, because it was given up, is taken from the account, below zero if need be.

    Args:
        charged: False for a repeat or a rejected event; its amount goes back to the account.
    """
    if not charged and held.settled + amount > MAX_SUM:
        amount = held.granted - held.settled
    lacking = max(0, amount - (held.granted - held.settled))
    held.granted += lacking
    held.settled += amount
    if charged:
        return Settled(available=-lacking, late=lacking > 0)
    held.returned += amount
    return Settled(available=amount - lacking, late=False)


def charge_elsewhere(held: Slice, *, amount: int) -> Settled:
    """Charge an event whose number a slice has settled before, under another id."""
    held.returned -= amount
    return Settled(available=-amount, late=False)


def give_up(held: Slice) -> int:
    """Take back what a slice holds, when nothing more is to come; returns how much that is."""
    given_up = held.granted - held.settled
    held.granted = held.settled
    return given_up
