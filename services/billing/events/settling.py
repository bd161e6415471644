"""Settling: which reservations the events of a batch were spent from. Pure functions."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from services.billing.events.batch import Arrival, Batch, Spend
from services.billing.events.rating import Offer, Rejection
from services.billing.ledger.reservations import (
    CreditReservation,
    ReservationKey,
    Settled,
    charge_elsewhere,
    settle,
)
from services.billing.plans.pricing import Tier, charge
from services.billing.plans.service import PriceBook
from services.billing.sources.ranges import Range, has_arrived


@dataclass(frozen=True, slots=True)
class Payment:
    """What a process spent on an event with a prepaid price, charged or not."""

    index: int
    account: str
    journal: str | None
    sequence: int | None
    amount: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """The changes that settle a batch."""

    reservations: Mapping[ReservationKey, CreditReservation]
    """Those that changed, as they are after the last event."""
    changes: Mapping[str, int]
    """To be added to what each account has available."""
    late: Set[int]
    """The indexes of events whose process's credit had been reclaimed before."""


def find_payments(
    batch: Batch, *, offers: Mapping[int, Offer | Rejection], book: PriceBook
) -> list[Payment]:
    """Return the payments of a batch's prepaid events in order, including rejected ones."""
    payments = [
        _payment(arrival.index, _spend(arrival, offer), offer.tiers)
        for arrival in batch.arrivals
        if isinstance(offer := offers[arrival.index], Offer) and offer.is_prepaid
    ]
    for index, spend in batch.spent.items():
        plan, price = book.prices.get(spend.price_id, (None, None))
        if plan is not None and price is not None and plan.billing == "prepaid":
            payments.append(_payment(index, spend, price.tiers))
    return sorted(payments, key=lambda payment: payment.index)


def _spend(arrival: Arrival, offer: Offer) -> Spend:
    event = arrival.event
    return Spend(
        event.subject, event.journal, event.sequence, offer.month.price_id, event.data.rows
    )


def _payment(index: int, spend: Spend, tiers: Sequence[Tier]) -> Payment:
    amount = charge(tiers=tiers, included_requests=0, number=1, rows=spend.rows)
    return Payment(index, spend.account, spend.journal, spend.sequence, amount)


def settle_all(
    payments: Sequence[Payment],
    *,
    charged: Set[int],
    arrived_before: Mapping[str, Sequence[Range]],
    reservations: Mapping[ReservationKey, CreditReservation],
) -> Settlement:
    """Settle the reservations that events were spent from.

    Each sequence of a journal was spent once, no matter how often and with which id it arrives. An
    event that is charged without a reservation is taken from the account.

    Args:
        charged: the indexes of events that are charged now; others are duplicates or rejected.
        arrived_before: the sequences received before this batch, by journal.
        reservations: those of the payments' accounts and journals.
    """
    changed: dict[ReservationKey, CreditReservation] = {}
    changes: Counter[str] = Counter()
    late: set[int] = set()
    seen: set[tuple[str, int]] = set()
    for payment in payments:
        key = ReservationKey(payment.account, payment.journal or "")
        settled = _settle(
            payment,
            reservation=changed.get(key) or reservations.get(key),
            is_charged=payment.index in charged,
            is_new=_is_new(payment, seen=seen, arrived_before=arrived_before),
        )
        if settled is None:
            continue
        if settled.late:
            late.add(payment.index)
        changes[payment.account] += settled.available
        if settled.reservation is not None:
            changed[key] = settled.reservation
    return Settlement(changed, changes, late)


def _is_new(
    payment: Payment,
    *,
    seen: set[tuple[str, int]],
    arrived_before: Mapping[str, Sequence[Range]],
) -> bool:
    if payment.journal is None or payment.sequence is None:
        return False
    number = payment.sequence
    known = (payment.journal, number) in seen or has_arrived(
        number, arrived_before.get(payment.journal, ())
    )
    seen.add((payment.journal, number))
    return not known


def _settle(
    payment: Payment, *, reservation: CreditReservation | None, is_charged: bool, is_new: bool
) -> Settled | None:
    if reservation is not None and is_new:
        return settle(reservation, amount=payment.amount, charged=is_charged)
    if not is_charged:
        return None
    if reservation is not None:
        return charge_elsewhere(reservation, amount=payment.amount)
    return Settled(None, available=-payment.amount, late=is_new)
