"""Rating: which events of a batch are new, and what each costs. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from services.billing.events.batch import Arrival, EventId
from services.billing.ledger.reservations import Funds
from services.billing.plans.pricing import Tier, charge
from services.billing.plans.service import PriceBook
from services.billing.usage.sums import (
    BreakdownKey,
    HourKey,
    MonthKey,
    Sums,
    VersionKey,
    dimension_of_tag,
    hour_of,
)
from services.common.contracts import MAX_SUM, RejectedEvent

Rejection = str
"""Why an event is rejected, in a few words."""


class Offer(NamedTuple):
    """The price that applies to an event, as plain values, and the month its request counts in."""

    month: MonthKey
    late: bool
    currency: str
    is_prepaid: bool
    tiers: Sequence[Tier]
    included_requests: int


class Rated(NamedTuple):
    """A new event and what it costs."""

    arrival: Arrival
    offer: Offer
    amount: int


@dataclass(frozen=True, slots=True)
class Rating:
    """Which events of a batch are accepted, and what they add up to."""

    accepted: Sequence[Rated]
    rejected: Sequence[RejectedEvent]
    conflicts: Sequence[Arrival]
    """Repeats with another payload."""
    duplicates: int
    months: Mapping[MonthKey, Sums]
    """To be added to the sums of months."""
    hours: Mapping[HourKey, Sums]
    """To be added to the sums of hours."""
    versions: Mapping[VersionKey, Sums]
    """To be added to the sums of hours by version."""
    breakdowns: Mapping[BreakdownKey, Sums]
    """To be added to the sums of hours by API key and tag."""
    currencies: Mapping[str, str]
    """Currencies of accounts that are charged for the first time."""


@dataclass(slots=True)
class _Added:
    """Sums that grow with each event."""

    requests: int = 0
    rows: int = 0
    amount: int = 0

    def add(self, rows: int, amount: int) -> None:
        """Add a request."""
        self.requests += 1
        self.rows += rows
        self.amount += amount

    def sums(self) -> Sums:
        """Return them as they are now."""
        return Sums(self.requests, self.rows, self.amount)


@dataclass(slots=True)
class _Tally:
    """What the events rated so far add up to."""

    months: dict[MonthKey, _Added] = field(default_factory=dict)
    currencies: dict[str, str] = field(default_factory=dict)
    prepaid: Counter[str] = field(default_factory=Counter)


def find_offers(
    arrivals: Sequence[Arrival], *, book: PriceBook, closed: Set[str], open_period: str
) -> dict[int, Offer | Rejection]:
    """Return the price of each event, or why it has none, by index.

    Args:
        closed: the closed months; their events count in the open one.
    """
    found: dict[tuple[str, str, str | None], Offer | Rejection] = {}
    offers: dict[int, Offer | Rejection] = {}
    for arrival in arrivals:
        key = (arrival.event.subject, arrival.period, arrival.event.data.price_id)
        # Without a named price, the time and the model count as well.
        if key not in found or not key[-1]:
            found[key] = _find_offer(arrival, book=book, closed=closed, open_period=open_period)
        offers[arrival.index] = found[key]
    return offers


def _find_offer(
    arrival: Arrival, *, book: PriceBook, closed: Set[str], open_period: str
) -> Offer | Rejection:
    """Return the price that an event names, or else its account's at the event's time."""
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
    return Offer(
        MonthKey(event.subject, period, price.id),
        late,
        currency=plan.currency,
        is_prepaid=plan.billing == "prepaid",
        tiers=price.tiers,
        included_requests=price.included_requests,
    )


def rate(
    arrivals: Sequence[Arrival],
    *,
    offers: Mapping[int, Offer | Rejection],
    known: Mapping[EventId, str],
    months: Mapping[MonthKey, Sums],
    currencies: Mapping[str, str],
    funds: Mapping[str, Funds],
) -> Rating:
    """Price the new events of a batch, in order.

    Args:
        offers: the price of each event, or why it has none.
        known: fingerprints of events accepted before.
        months: the sums so far, for every offer's month.
        currencies: those of accounts that have been charged before.
        funds: those of accounts with a prepaid price, if they have any.
    """
    fingerprints = dict(known)
    accepted: list[Rated] = []
    rejected: list[RejectedEvent] = []
    conflicts: list[Arrival] = []
    duplicates = 0
    tally = _Tally()
    for arrival in arrivals:
        first = fingerprints.get(arrival.key)
        if first == arrival.fingerprint:
            duplicates += 1
            continue
        if first is not None:
            conflicts.append(arrival)
            continue
        offer = offers[arrival.index]
        rated = (
            _charge(arrival, offer, tally=tally, months=months, currencies=currencies, funds=funds)
            if isinstance(offer, Offer)
            else offer
        )
        if isinstance(rated, Rated):
            fingerprints[arrival.key] = arrival.fingerprint
            accepted.append(rated)
        else:
            rejected.append(RejectedEvent(index=arrival.index, id=arrival.event.id, reason=rated))
    versions = _by_version(accepted)
    return Rating(
        accepted=accepted,
        rejected=rejected,
        conflicts=conflicts,
        duplicates=duplicates,
        months={key: added.sums() for key, added in tally.months.items()},
        hours=_by_hour(versions),
        versions=versions,
        breakdowns=_break_down(accepted),
        currencies=tally.currencies,
    )


def _by_version(accepted: Sequence[Rated]) -> dict[VersionKey, Sums]:
    """Return the sums of new events by version."""
    sums: defaultdict[tuple[str, datetime, str, str, str], _Added] = defaultdict(_Added)
    for arrival, offer, amount in accepted:
        data, hour = arrival.event.data, hour_of(arrival.time)
        account, _, price_id = offer.month
        sums[account, hour, data.model, price_id, data.version].add(data.rows, amount)
    return {VersionKey(*key): added.sums() for key, added in sums.items()}


def _by_hour(versions: Mapping[VersionKey, Sums]) -> dict[HourKey, Sums]:
    """Return the sums by hour of those by version."""
    hours: dict[HourKey, Sums] = {}
    for version, sums in versions.items():
        key = HourKey(version.account, version.hour, version.model, version.price_id)
        hours[key] = hours[key].plus(*sums) if key in hours else sums
    return hours


def _break_down(accepted: Sequence[Rated]) -> dict[BreakdownKey, Sums]:
    """Return the sums of new events by API key and tag, where they have one."""
    sums: defaultdict[tuple[str, str, datetime, str], _Added] = defaultdict(_Added)
    for arrival, _, amount in accepted:
        data = arrival.event.data
        if data.api_key is None and not data.tags:
            continue
        account, hour = arrival.event.subject, hour_of(arrival.time)
        if data.api_key is not None:
            sums[account, "api_key", hour, data.api_key].add(data.rows, amount)
        for name, value in (data.tags or {}).items():
            sums[account, dimension_of_tag(name), hour, value].add(data.rows, amount)
    return {BreakdownKey(*key): added.sums() for key, added in sums.items()}


def _charge(
    arrival: Arrival,
    offer: Offer,
    *,
    tally: _Tally,
    months: Mapping[MonthKey, Sums],
    currencies: Mapping[str, str],
    funds: Mapping[str, Funds],
) -> Rated | Rejection:
    """Price an event and add it to the tally, or return why it cannot be charged."""
    account, rows = arrival.event.subject, arrival.event.data.rows
    currency = currencies.get(account) or tally.currencies.get(account)
    if currency not in (None, offer.currency):
        return "the price is not in the account's currency"
    before, added = months[offer.month], tally.months.get(offer.month) or _Added()
    amount = charge(
        tiers=offer.tiers,
        included_requests=offer.included_requests,
        number=before.requests + added.requests + 1,
        rows=rows,
    )
    if before.amount + added.amount + amount > MAX_SUM:
        return "the amount is too large"
    if offer.is_prepaid:
        available = funds[account].available if account in funds else 0
        if tally.prepaid[account] + amount > MAX_SUM + min(available, 0):
            return "the amount is too large"
        tally.prepaid[account] += amount

    added.add(rows, amount)
    tally.months[offer.month] = added
    if currency is None:
        tally.currencies[account] = offer.currency
    return Rated(arrival, offer, amount)
