"""What a delivery of events changes, whatever is in it and however it is delivered."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.usage_events import ADA, BOB, JOURNAL, Json, event
from services.billing.events.batch import EventId, read_batch
from services.billing.events.deciding import Decisions, Stored, decide, price
from services.billing.events.rating import Offer
from services.billing.ledger.reservations import (
    CreditReservation,
    Funds,
    LockedMoney,
    ReservationKey,
)
from services.billing.models import Plan, Price
from services.billing.plans.pricing import Tier
from services.billing.plans.service import PriceBook
from services.billing.sources.ranges import merge
from services.billing.usage.sums import NO_USAGE, MonthKey, Sums
from tests.integration.billing.money import NOON

OTHER = "0198b000-0000-7000-8000-000000000002"
CREDIT = 100


def stored_plan(name: str, *tiers: tuple[int | None, str, str], **members: Any) -> Plan:
    fields = ("up_to_requests", "per_request", "per_row")
    made = tuple(Tier.model_validate(dict(zip(fields, tier, strict=True))) for tier in tiers)
    only = Price(id=name, model=None, included_requests=0, tiers=made)
    return Plan(id=name, prices=[only], **({"currency": "USD", "billing": "postpaid"} | members))


PREPAID = stored_plan("prepaid", (None, "0", "0.000000001"), billing="prepaid")
TIERED = stored_plan("tiered", (1, "3", "0"), (2, "2", "0"), (None, "1", "0"))
EURO = stored_plan("euro", (None, "1", "1"), currency="EUR")
BOOK = PriceBook(
    plans={plan.id: plan for plan in (PREPAID, TIERED, EURO)},
    prices={plan.id: (plan, plan.prices[0]) for plan in (PREPAID, TIERED, EURO)},
    models={(plan.id, None): plan.prices[0] for plan in (PREPAID, TIERED, EURO)},
    assignments={},
    default_plan="tiered",
)


class Books:
    """What the database would store: decisions are applied as the service writes them."""

    def __init__(self, *, granted: int = 0) -> None:
        self.known: dict[EventId, str] = {}
        self.months: dict[MonthKey, Sums] = {}
        self.currencies = {ADA: "USD", BOB: "USD"}
        self.available = dict.fromkeys((ADA, BOB), CREDIT - 2 * granted)
        self.reservations = {
            ReservationKey(account, journal): CreditReservation(account, journal, granted)
            for account in (ADA, BOB)
            for journal in (JOURNAL, OTHER)
        }
        self.arrived: defaultdict[str, set[int]] = defaultdict(set)
        self.charged: Counter[str] = Counter()
        """What prepaid events were charged, by account."""

    def deliver(self, items: Sequence[Any]) -> Decisions:
        batch = read_batch(items, now=NOON)
        priced = price(batch, book=BOOK, closed={"2026-10"}, open_period="2026-11")
        offers = [offer for offer in priced.offers.values() if isinstance(offer, Offer)]
        stored = Stored(
            arrived_before={
                journal: merge((number, number) for number in numbers)
                for journal, numbers in self.arrived.items()
            },
            known=self.known,
            months={offer.month: self.months.get(offer.month, NO_USAGE) for offer in offers},
            currencies=self.currencies,
            money=LockedMoney(
                {account: Funds("USD", self.available[account]) for account in self.available},
                self.reservations,
            ),
        )
        before = (dict(self.known), dict(self.available), dict(self.reservations))
        decisions = decide(batch, priced, stored)
        unchanged = (self.known, self.available, self.reservations) == before
        assert unchanged, "a decision must not change what it was given"
        self._write(decisions)
        for journal, numbers in batch.numbers.items():
            self.arrived[journal] |= numbers
        return decisions

    def _write(self, decisions: Decisions) -> None:
        rating, settlement = decisions.rating, decisions.settlement
        for arrival, offer, amount in rating.accepted:
            assert arrival.key not in self.known
            self.known[arrival.key] = arrival.fingerprint
            if offer.is_prepaid:
                self.charged[arrival.event.subject] += amount
        for month, sums in rating.months.items():
            self.months[month] = self.months.get(month, NO_USAGE).plus(*sums)
        for account, change in settlement.changes.items():
            self.available[account] += change
        self.reservations |= settlement.reservations

    def balance(self, account: str) -> int:
        held = sum(
            each.granted - each.settled
            for each in self.reservations.values()
            if each.account == account
        )
        return self.available[account] + held

    def totals(self) -> Any:
        """Return everything that is charged and left."""
        balances = {account: self.balance(account) for account in (ADA, BOB)}
        return self.charged, balances, self.months, self.known


prices = st.sampled_from(["prepaid", "prepaid", "tiered", "euro", "unknown", None])


@st.composite
def events(draw: st.DrawFn, *, honest: bool = False) -> Json:
    """Draw an event; ids, journals and sequences repeat, and some events are invalid.

    Honest ones are valid, and those with the same id have the same payload.
    """
    number = draw(st.integers(1, 12))
    account = (ADA, BOB)[number % 2] if honest else draw(st.sampled_from([ADA, BOB]))
    made = event(
        id=f"e{number}",
        account=account,
        rows=number if honest else draw(st.integers(0, 30)),
        time=NOON if honest else NOON - timedelta(days=draw(st.sampled_from([0, 30]))),
        price_id=("prepaid", "tiered")[number % 3 == 0] if honest else draw(prices),
        sequence=number if honest else draw(st.none() | st.integers(1, 12)),
        journal=(JOURNAL, OTHER)[number % 4 < 2]
        if honest
        else draw(st.sampled_from([JOURNAL, OTHER])),
    )
    if not honest and draw(st.integers(0, 5)) == 0:
        del made["specversion"]
    return made


deliveries = st.lists(st.lists(events(), max_size=6), max_size=4)
grants = st.sampled_from([0, 5, 50])


@given(deliveries, grants)
def test_money_is_conserved(batches: list[list[Json]], granted: int) -> None:
    books = Books(granted=granted)

    for batch in batches:
        books.deliver(batch)

    for account in (ADA, BOB):
        assert books.balance(account) == CREDIT - books.charged[account]


@given(deliveries, grants)
def test_no_reservation_settles_more_than_it_was_granted(
    batches: list[list[Json]], granted: int
) -> None:
    books = Books(granted=granted)

    for batch in batches:
        books.deliver(batch)

        for each in books.reservations.values():
            assert 0 <= each.settled <= each.granted
            assert each.granted >= granted


@given(deliveries)
def test_every_event_has_exactly_one_outcome(batches: list[list[Json]]) -> None:
    books = Books()
    for items in batches:
        batch = read_batch(items, now=NOON)

        rating = books.deliver(items).rating

        outcomes = [rated.arrival.index for rated in rating.accepted]
        outcomes += [arrival.index for arrival in rating.conflicts]
        outcomes += [each.index for each in (*rating.rejected, *batch.rejected)]
        assert len(set(outcomes)) == len(outcomes) == len(items) - rating.duplicates
        assert sum(sums.requests for sums in rating.months.values()) == len(rating.accepted)
        assert sum(sums.amount for sums in rating.hours.values()) == sum(
            rated.amount for rated in rating.accepted
        )


@given(deliveries, grants, st.data())
def test_events_delivered_again_change_nothing(
    batches: list[list[Json]], granted: int, data: st.DataObject
) -> None:
    books = Books(granted=granted)
    accepted = []
    for batch in batches:
        rating = books.deliver(batch).rating
        accepted += [batch[rated.arrival.index] for rated in rating.accepted]
    before = deepcopy((books.totals(), books.available, books.reservations))

    again = books.deliver(data.draw(st.permutations([*accepted, *accepted])))

    assert not again.rating.accepted
    assert not again.rating.conflicts
    assert not again.rating.rejected
    assert again.rating.duplicates == 2 * len(accepted)
    assert (books.totals(), books.available, books.reservations) == before


@given(st.lists(events(honest=True), max_size=16), grants, st.data())
def test_totals_do_not_depend_on_how_events_are_ordered_and_batched(
    delivered: list[Json], granted: int, data: st.DataObject
) -> None:
    books, others = Books(granted=granted), Books(granted=granted)
    books.deliver(delivered)
    rest = data.draw(st.permutations(delivered))

    while rest:
        size = data.draw(st.integers(1, len(rest)))
        others.deliver(rest[:size])
        rest = rest[size:]

    assert others.totals() == books.totals()
    assert others.available == books.available
    assert others.reservations == books.reservations


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_repeat_with_another_payload_is_a_conflict_and_gives_back_what_it_spent(
    rows: int, other_rows: int
) -> None:
    books = Books(granted=50)
    first = event(id="e", time=NOON, rows=rows, price_id="prepaid", sequence=1)
    other = event(id="e", time=NOON, rows=other_rows, price_id="prepaid", sequence=2)

    rating = books.deliver([first, other]).rating

    assert len(rating.conflicts) == (rows != other_rows)
    assert rating.duplicates == (rows == other_rows)
    assert books.charged == Counter({ADA: rows})
    assert books.balance(ADA) == CREDIT - rows


def test_tiers_count_the_requests_of_a_delivery_one_by_one() -> None:
    books = Books()

    rating = books.deliver([event(id=f"e{number}", time=NOON) for number in range(4)]).rating

    assert [rated.amount // 10**9 for rated in rating.accepted] == [3, 2, 1, 1]


def test_an_account_without_funds_is_charged_below_zero() -> None:
    books = Books()
    books.available[ADA] = 0

    books.deliver([event(time=NOON, rows=7, price_id="prepaid")])

    assert books.available[ADA] == -7


def test_an_event_of_a_closed_month_is_late_and_counts_in_the_open_one() -> None:
    books = Books()

    (rated,) = books.deliver([event(time=NOON - timedelta(days=30))]).rating.accepted

    assert rated.offer.late
    assert list(books.months) == [MonthKey(ADA, "2026-11", "tiered")]
