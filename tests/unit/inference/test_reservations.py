"""Nothing is overspent and nothing is lost, whatever happens between processes and billing."""

import asyncio
import uuid
from dataclasses import dataclass, field
from enum import Enum

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from pydantic import TypeAdapter

from services.common.contracts import LeaseRequest, LeaseTerms, PriceTerms
from services.common.errors import ServiceError
from services.inference.metering.leases.accounts import Account, Waiter
from services.inference.metering.leases.rates import RateMeter
from services.inference.metering.leases.reservations import SPENDABLE_S, CreditReservation
from tests.integration.inference.wallets import Wallets

ACCOUNT = "00000000-0000-4000-8000-00000000000a"
PROCESSES = 3
WHICH = st.integers(0, PROCESSES - 1)
LOOP = asyncio.new_event_loop()


class Fate(Enum):
    """What happens to a lease request."""

    ANSWERED = 1
    REQUEST_LOST = 2
    RESPONSE_LOST = 3
    UNDER_WAY = 4


@dataclass(eq=False)
class Process:
    """A process run, reduced to what it shares with billing."""

    journal: str = field(default_factory=lambda: str(uuid.uuid4()))
    account: Account = field(
        default_factory=lambda: Account(
            ACCOUNT, used_at=0, requests=RateMeter(0), money=RateMeter(0)
        )
    )
    sequence: int = 0
    pending: LeaseRequest | None = None
    sent_at: float = 0.0
    reserved: list[tuple[CreditReservation, int]] = field(default_factory=list)
    waiting: list[Waiter] = field(default_factory=list)
    journalled: list[tuple[str, int]] = field(default_factory=list)
    """Id and amount of its events, in order."""
    shipped: int = 0


class Spending(RuleBasedStateMachine):
    """Processes that start, spend and die, and the wallets they spend from."""

    @initialize(credit=st.integers(1, 100))
    def start(self, credit: int) -> None:
        self.wallets = Wallets(available={ACCOUNT: credit})
        self.credit = credit
        self.charged: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.now = 1.0
        self.living = [Process() for _ in range(PROCESSES)]
        self.delayed: list[LeaseRequest] = []
        for which in range(PROCESSES):
            self.a_request_comes(which=which, amount=1)
            self.it_requests_a_lease(which=which, idle=False, fate=Fate.ANSWERED)

    @rule(credit=st.integers(0, 30), seconds=st.sampled_from([0.1] * 9 + [SPENDABLE_S]))
    def time_passes_and_credit_is_added(self, credit: int, seconds: float) -> None:
        self.wallets.available[ACCOUNT] += credit
        self.credit += credit
        self.now += seconds

    @rule(which=WHICH, amount=st.integers(1, 12))
    def a_request_comes(self, which: int, amount: int) -> None:
        process = self.living[which]
        if process.account.reserve(amount, self.now):
            process.reserved.append((process.account.reservation, amount))
        else:
            waiter = Waiter(amount, LOOP.create_future())
            process.account.waiting.append(waiter)
            process.waiting.append(waiter)

    @rule(which=WHICH, idle=st.booleans(), fate=st.sampled_from(Fate))
    def it_requests_a_lease(self, which: int, idle: bool, fate: Fate) -> None:
        """Send one lease request at a time; the request or its response may be lost."""
        process = self.living[which]
        if process.pending is None:
            process.sequence += 1
            process.sent_at = self.now
            process.pending = process.account.lease_request(
                journal=process.journal, sequence=process.sequence, now=self.now, idle=idle
            )
        self._request_ends(process, fate)

    def _request_ends(self, process: Process, fate: Fate) -> None:
        pending = process.pending
        if pending is None or fate is Fate.UNDER_WAY:
            return
        process.pending = None
        if fate is Fate.ANSWERED:
            terms = self._billing_takes(pending)
            process.account.apply_terms(terms, sent_at=process.sent_at, now=self.now)
        else:
            if fate is Fate.REQUEST_LOST:
                self.delayed.append(pending)  # it may arrive yet
            else:
                self._billing_takes(pending)
            process.account.fail()
        self._collect(process)

    @rule(number=st.integers(0, 3))
    def a_late_lease_request_arrives(self, number: int) -> None:
        if number < len(self.delayed):
            late = self.delayed.pop(number)
            if late.journal in {process.journal for process in self.living}:
                self._billing_takes(late)

    @rule(which=WHICH, fails=st.booleans(), repeats=st.integers(0, 3))
    def a_request_ends(self, which: int, fails: bool, repeats: int) -> None:
        """End a request: it fails or is journalled, perhaps as a repeat with the same amount."""
        process = self.living[which]
        if not process.reserved:
            return
        held, amount = process.reserved.pop()
        if fails:
            held.free(amount)
            return
        same = sorted(id for id, paid in self.ids.items() if paid == amount)
        event_id = same[repeats] if repeats < len(same) else str(len(self.ids))
        self.ids[event_id] = amount
        process.journalled.append((event_id, amount))

    @rule(which=WHICH, back=st.integers(0, 3))
    def usage_is_shipped_perhaps_again(self, which: int, back: int) -> None:
        process = self.living[which]
        for number in range(max(process.shipped - back, 0), len(process.journalled)):
            self._ship(process, number)
        process.shipped = len(process.journalled)

    @rule(which=WHICH)
    def it_dies_and_another_ships_what_it_left(self, which: int) -> None:
        self._end(self.living[which])
        self.living[which] = Process()

    @invariant()
    def no_more_is_granted_or_spent_than_there_is(self) -> None:
        if not hasattr(self, "wallets"):
            return
        assert self.wallets.available[ACCOUNT] >= 0
        assert self.wallets.balance(ACCOUNT) == self.credit - sum(self.charged.values())
        assert sum(self.ids.values()) <= self.credit
        for process in self.living:
            mine = self.wallets.reservations.get((ACCOUNT, process.journal))
            assert process.account.reservation.spent <= (mine.granted if mine else 0)
            if process.account.reservation.confirmed:
                assert process.account.reservation.granted <= (mine.granted if mine else 0)

    def teardown(self) -> None:
        """Check that, once every journal is closed, nothing is held and no 10⁻⁹ is missing."""
        if hasattr(self, "wallets"):
            for process in self.living:
                self._end(process)
            assert self.wallets.held(ACCOUNT) == 0
            assert self.wallets.available[ACCOUNT] == self.credit - sum(self.ids.values())

    def _end(self, process: Process) -> None:
        for number in range(len(process.journalled)):
            self._ship(process, number)
        self.wallets.close(process.journal)

    def _ship(self, process: Process, number: int) -> None:
        event_id, amount = process.journalled[number]
        self.wallets.settle(
            ACCOUNT, process.journal, str(number), amount, charged_before=event_id in self.charged
        )
        self.charged[event_id] = amount

    def _collect(self, process: Process) -> None:
        for waiter in [waiter for waiter in process.waiting if waiter.paid.done()]:
            process.waiting.remove(waiter)
            if waiter.paid.exception() is None:
                held = waiter.paid.result()
                assert held is not None
                process.reserved.append((held, waiter.amount))
            else:
                assert isinstance(waiter.paid.exception(), ServiceError)

    def _billing_takes(self, request: LeaseRequest) -> LeaseTerms:
        status, granted = self.wallets.lease(request.model_dump(mode="json"))
        return TypeAdapter(LeaseTerms).validate_python(
            {
                "account": ACCOUNT,
                "status": status,
                "currency": "USD",
                "billing": "prepaid",
                "granted": granted,
                "prices": [PriceTerms(model=None, price_id="p", per_request="1", per_row="0")],
                "rate_limit": None,
            }
        )


Spending.TestCase.settings = settings(stateful_step_count=40)
TestSpending = Spending.TestCase


def test_after_a_lost_response_nothing_is_spent_until_the_next() -> None:
    held = CreditReservation(granted=10, spent=4, until=100.0)

    held.report(may_lower=True)
    refused = held.reserve(1, now=0.0)
    held.report(may_lower=False)
    held.apply_grant(7, sent_at=0.0)

    assert not refused
    assert held.reserve(3, now=0.0)
    assert not held.reserve(1, now=0.0)


def test_a_background_request_never_stops_spending() -> None:
    held = CreditReservation(granted=10, spent=4, until=100.0)

    held.report(may_lower=False)

    assert held.reserve(6, now=0.0)


def test_a_reservation_is_valid_for_eight_minutes_after_the_last_answered_request() -> None:
    held = CreditReservation()

    held.apply_grant(10, sent_at=1_000.0)

    assert held.reserve(1, now=1_479.9)
    assert not held.reserve(1, now=1_480.0)
