"""Deciding what a batch of events changes, without a database or a clock.

`price` says what a batch is about, so that the right rows can be locked. `decide` says what to
write, given those rows.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from services.billing.events.batch import Batch, EventId
from services.billing.events.rating import Offer, Rating, Rejection, find_offers, rate
from services.billing.events.settling import Payment, Settlement, find_payments, settle_all
from services.billing.ledger.reservations import LockedMoney
from services.billing.plans.service import PriceBook
from services.billing.sources.ranges import Range
from services.billing.usage.sums import MonthKey, Sums


@dataclass(frozen=True, slots=True)
class Priced:
    """The prices of a batch's events, and what their processes spent."""

    offers: Mapping[int, Offer | Rejection]
    """By index."""
    payments: Sequence[Payment]
    """What was spent on events with a prepaid price, including rejected ones, in order."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored about a batch's events, locked by the transaction that ingests them."""

    arrived_before: Mapping[str, Sequence[Range]]
    """The sequences received before, by journal, as far as they are near the batch's."""
    known: Mapping[EventId, str]
    """Fingerprints of events accepted before."""
    months: Mapping[MonthKey, Sums]
    """The sums so far, for every offer's month."""
    currencies: Mapping[str, str]
    """Those of accounts that have been charged before."""
    money: LockedMoney
    """The money of the accounts and journals with payments."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What to write."""

    rating: Rating
    settlement: Settlement


def price(batch: Batch, *, book: PriceBook, closed: Set[str], open_period: str) -> Priced:
    """Find the price of each event, and what each process spent of prepaid credit.

    Args:
        book: the prices that the events name, and the plans of accounts whose events name none.
        closed: the closed months; their events count in the open one.
    """
    offers = find_offers(batch.arrivals, book=book, closed=closed, open_period=open_period)
    return Priced(offers, find_payments(batch, offers=offers, book=book))


def decide(batch: Batch, priced: Priced, stored: Stored) -> Decisions:
    """Decide which events are accepted, what they cost, and which reservations that settles."""
    rating = rate(
        batch.arrivals,
        offers=priced.offers,
        known=stored.known,
        months=stored.months,
        currencies=stored.currencies,
        funds=stored.money.funds,
    )
    has_money = stored.money.funds.keys() | rating.currencies
    settlement = settle_all(
        [payment for payment in priced.payments if payment.account in has_money],
        charged={rated.arrival.index for rated in rating.accepted},
        arrived_before=stored.arrived_before,
        reservations=stored.money.reservations,
    )
    return Decisions(rating, settlement)
