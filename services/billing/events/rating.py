"""Rating: which events of a batch are new, and what each costs. Pure, given the stored data."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from services.billing.events.batch import Arrival, EventId
from services.billing.ledger.accounts import Funds
from services.billing.models import Plan, Price
from services.billing.plans.pricing import charge
from services.billing.plans.service import PriceBook
from services.billing.usage.repository import HourKey, MonthKey, Sums, hour_of
from services.common.contracts import MAX_SUM, RejectedEvent

Rejection = str
"""Why an event is rejected, in a few words."""

_NOTHING = Sums()


class Offer(NamedTuple):
    """The price that applies to an event, and the month its request counts in."""

    plan: Plan
    price: Price
    month: MonthKey
    late: bool


class Rated(NamedTuple):
    """A new event and what it costs."""

    arrival: Arrival
    offer: Offer
    amount: int


@dataclass(slots=True)
class Outcome:
    """The outcome of a batch, to be stored."""

    accepted: list[Rated] = field(default_factory=list)
    rejected: list[RejectedEvent] = field(default_factory=list)
    conflicts: list[Arrival] = field(default_factory=list)
    duplicates: int = 0
    months: defaultdict[MonthKey, Sums] = field(default_factory=lambda: defaultdict(Sums))
    hours: defaultdict[HourKey, Sums] = field(default_factory=lambda: defaultdict(Sums))
    currencies: dict[str, str] = field(default_factory=dict)
    """Currencies of accounts that are charged for the first time."""
    prepaid: Counter[str] = field(default_factory=Counter)
    """What prepaid accounts are charged."""


def find_offer(
    arrival: Arrival, *, book: PriceBook, closed: Set[str], open_period: str
) -> Offer | Rejection:
    """Return the price of an event, or why it has none.

    It is the price that the event names, or else its account's at the event's time. An event of a
    closed month counts in the open one.
    """
    event = arrival.event
    late = arrival.period in closed
    if event.data.price_id is not None:
        named = book.prices.get(event.data.price_id)
        if named is None:
            return "data.price_id: unknown price"
        plan, price = named
    else:
        in_force = book.plan_at(event.subject, arrival.time)
        if in_force is None:
            return "no plan was in force at the event's time"
        found = book.price_for(in_force, event.data.model)
        if found is None:
            return "the plan has no price for the model"
        plan, price = in_force, found
    period = open_period if late else arrival.period
    return Offer(plan, price, MonthKey(event.subject, period, price.id), late)


def rate(
    offers: Iterable[tuple[Arrival, Offer | Rejection]],
    *,
    known: MutableMapping[EventId, str],
    months: Mapping[MonthKey, Sums],
    currencies: Mapping[str, str],
    funds: Mapping[str, Funds],
) -> Outcome:
    """Price the new events of a batch, in order.

    Args:
        offers: each event with its price, or why it has none.
        known: fingerprints of events accepted before; those accepted now are added.
        months: the sums so far, for every offer's month.
        currencies: those of accounts that have been charged before.
        funds: those of accounts with a prepaid price, if they have any.
    """
    outcome = Outcome()
    for arrival, offer in offers:
        first = known.get(arrival.key)
        if first is not None:
            if first == arrival.fingerprint:
                outcome.duplicates += 1
            else:
                outcome.conflicts.append(arrival)
            continue
        rejection = (
            _charge(
                arrival, offer, outcome=outcome, months=months, currencies=currencies, funds=funds
            )
            if isinstance(offer, Offer)
            else offer
        )
        if rejection is None:
            known[arrival.key] = arrival.fingerprint
        else:
            outcome.rejected.append(
                RejectedEvent(index=arrival.index, id=arrival.event.id, reason=rejection)
            )
    return outcome


def _charge(
    arrival: Arrival,
    offer: Offer,
    *,
    outcome: Outcome,
    months: Mapping[MonthKey, Sums],
    currencies: Mapping[str, str],
    funds: Mapping[str, Funds],
) -> Rejection | None:
    """Price an event and count it, or return why it cannot be charged."""
    account, rows = arrival.event.subject, arrival.event.data.rows
    currency = currencies.get(account) or outcome.currencies.get(account)
    if currency not in (None, offer.plan.currency):
        return "the price is not in the account's currency"
    before, added = months[offer.month], outcome.months.get(offer.month, _NOTHING)
    amount = charge(
        tiers=offer.price.tiers,
        included_requests=offer.price.included_requests,
        number=before.requests + added.requests + 1,
        rows=rows,
    )
    if before.amount + added.amount + amount > MAX_SUM:
        return "the amount is too large"
    if offer.plan.billing == "prepaid":
        available = funds[account].available if account in funds else 0
        if outcome.prepaid[account] + amount > MAX_SUM + min(available, 0):
            return "the amount is too large"
        outcome.prepaid[account] += amount

    hour = HourKey(account, hour_of(arrival.time), arrival.event.data.model, offer.price.id)
    outcome.months[offer.month].add(rows=rows, amount=amount)
    outcome.hours[hour].add(rows=rows, amount=amount)
    if currency is None:
        outcome.currencies[account] = offer.plan.currency
    outcome.accepted.append(Rated(arrival, offer, amount))
    return None
