"""Lease terms and credit reservations over time, on a clock that the tests move."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.common.errors import Unavailable
from services.inference.metering.billing_client import BillingClient
from services.inference.metering.leases.accounts import PaymentRequired
from services.inference.metering.leases.manager import (
    IDLE_AFTER_S,
    RENEW_AFTER_S,
    LeaseManager,
)
from services.inference.metering.leases.rates import RateLimited
from services.inference.metering.leases.reservations import SPENDABLE_S
from services.inference.metering.leases.spending import Spending
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours, running


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def assert_spends_without_billing(
    leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours, *, seconds: float
) -> None:
    """Check that an account can spend so long after its last lease, and no longer."""
    await leases.spend(account, "m", 1)
    neighbours.failing = {"/leases": 500}
    clock.now += seconds - 1
    await leases.spend(account, "m", 1)

    clock.now += 1
    with pytest.raises(Unavailable):
        await leases.spend(account, "m", 1)


class TestClock:
    @pytest.fixture
    async def neighbours(self) -> AsyncIterator[Neighbours]:
        """Neighbours that no other process calls."""
        async with running(Neighbours()) as started:
            yield started

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def leases(self, billing: BillingClient, clock: Clock) -> LeaseManager:
        return LeaseManager(billing, journal=str(uuid.uuid4()), max_age_s=3600, clock=clock)

    async def test_no_prepaid_credit_is_spent_eight_minutes_after_the_last_answered_request(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")

        await assert_spends_without_billing(leases, clock, account, neighbours, seconds=SPENDABLE_S)

    async def test_postpaid_accounts_continue_for_an_hour(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        await assert_spends_without_billing(leases, clock, account, neighbours, seconds=3_600)

    async def test_a_refused_request_counts_before_there_is_a_price(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.5, "burst": 2}
        neighbours.status = "no_plan"

        for _ in range(2):
            await leases.admit(account)
        with pytest.raises(RateLimited):
            await leases.admit(account)

        clock.now += 2
        await leases.admit(account)

    async def test_a_first_lease_under_way_is_not_requested_again(
        self, leases: LeaseManager, account: str, neighbours: Neighbours
    ) -> None:
        waiting = asyncio.create_task(leases.admit(account))
        async with asyncio.timeout(30):
            while not neighbours.tokens:  # the call fetches a token before it requests the lease
                await asyncio.sleep(0)

        await leases.tick()

        await waiting
        await leases.release()
        assert [request["account"] for request in neighbours.lease_requests] == [account]

    async def test_what_must_wait_is_neither_admitted_nor_charged_at_once(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.001")
        unknown = leases.admit_now(account), leases.spend_now(account, "m", 1)
        await leases.admit(account)

        first = leases.spend_now(account, "m", 1)  # no credit is reserved yet
        waited = await leases.spend(account, "m", 1)
        too_much = leases.spend_now(account, "m", 9)
        admitted = leases.admit_now(account)
        clock.now += 31  # the terms may have changed
        stale = leases.admit_now(account), leases.spend_now(account, "m", 0)

        assert unknown == stale == (False, None)
        assert (first, too_much) == (None, None)
        assert admitted
        await leases.release()
        assert neighbours.wallets.available[account] == 10**6 - waited.amount

    async def test_a_request_waits_only_once_for_fresher_terms_that_do_not_come(
        self,
        leases: LeaseManager,
        clock: Clock,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        waits = []

        async def count(*arguments: Any, **options: Any) -> Any:
            waits.append(options)
            raise Unavailable("Slow.")

        await leases.spend(account, "m", 1)
        clock.now += 31
        monkeypatch.setattr(leases, "_wait", count)

        await leases.admit(account)
        await leases.spend(account, "m", 1)

        assert len(waits) == 1

    async def test_an_account_that_returns_after_a_pause_pays_the_current_price(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        before = await leases.spend(account, "m", 1)
        neighbours.price_id = "price-2"
        clock.now += 31

        after = await leases.spend(account, "m", 1)

        assert (before.price_id, after.price_id) == ("price-1", "price-2")

    async def test_only_terms_in_use_are_renewed_after_twenty_seconds(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        unused = str(uuid.uuid4())
        await asyncio.gather(leases.spend(account, "m", 1), leases.spend(unused, "m", 1))
        clock.now += 21
        await leases.spend(account, "m", 1)
        before = len(neighbours.lease_requests)

        await leases.tick()
        await leases.release()

        assert [request["account"] for request in neighbours.lease_requests[before:]] == [account]

    async def test_a_forgotten_account_keeps_what_it_spent(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0012")
        await leases.spend(account, "m", 1)
        for _ in range(2):
            clock.now += 700
            await leases.tick()
            await leases.release()

        await leases.spend(account, "m", 1)
        clock.now += 1
        with pytest.raises(PaymentRequired):
            await leases.spend(account, "m", 1)

    async def test_a_process_that_was_declared_lost_is_granted_what_it_spent_first(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")
        for _ in range(8):
            await leases.spend(account, "m", 1)
        neighbours.wallets.declare_lost(account)
        clock.now += SPENDABLE_S

        for _ in range(2):
            await leases.spend(account, "m", 1)
        with pytest.raises(PaymentRequired):
            await leases.spend(account, "m", 1)

    async def test_a_lost_and_forgotten_account_keeps_what_it_spent(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0012")
        await leases.spend(account, "m", 1)
        neighbours.wallets.declare_lost(account)
        for _ in range(3):
            clock.now += 700
            await leases.tick()
            await leases.release()

        await leases.spend(account, "m", 1)

        assert neighbours.lease_requests[-1]["spent"] == "0.0006"

    async def test_a_request_that_waited_while_its_account_turned_postpaid_costs_the_new_price(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        await leases.spend(account, "m", 1)
        del neighbours.wallets.available[account]
        neighbours.price_id = "price-2"
        clock.now += 1

        spending = await leases.spend(account, "m", 1)

        assert (spending.price_id, spending.reservation) == ("price-2", None)

    async def test_more_accounts_than_fit_in_a_call_are_all_served(
        self, leases: LeaseManager, neighbours: Neighbours
    ) -> None:
        accounts = [str(uuid.uuid4()) for _ in range(1_100)]

        spendings = await asyncio.gather(*(leases.spend(id, "m", 1) for id in accounts))

        assert {spending.amount for spending in spendings} == {600_000}
        asked = Counter(request["account"] for request in neighbours.lease_requests)
        assert {asked[account] for account in accounts} == {1}

    async def test_while_billing_is_away_a_low_reservation_does_not_call_it_at_every_request(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.03")
        for _ in range(6):
            await leases.spend(account, "m", 1)
        neighbours.losing = {"/leases"}
        before = len(neighbours.lease_requests)
        clock.now += 1

        for _ in range(4):
            await leases.spend(account, "m", 1)
            await eventually(lambda: len(neighbours.lease_requests) > before)
            await asyncio.sleep(0.05)

        assert len(neighbours.lease_requests) == before + 1

    async def test_of_many_accounts_each_tick_looks_at_the_next_until_all_are_renewed(
        self, billing: BillingClient, clock: Clock, neighbours: Neighbours
    ) -> None:
        leases = LeaseManager(
            billing, journal=str(uuid.uuid4()), max_age_s=3_600, max_looks=2, clock=clock
        )
        accounts = {str(uuid.uuid4()) for _ in range(5)}
        for account in accounts:
            await leases.spend(account, "m", 1)
        neighbours.lease_requests.clear()

        clock.now += RENEW_AFTER_S
        for account in accounts:
            leases.spend_now(account, "m", 1)
        renewed = []
        for _ in range(3):
            await leases.tick()
            await leases.release()
            renewed.append(len(neighbours.lease_requests))

        assert renewed == [2, 4, 5]
        assert {request["account"] for request in neighbours.lease_requests} == accounts

    async def test_an_idle_account_gives_its_credit_back_and_can_spend_again(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await leases.spend(account, "m", 1)
        held = neighbours.wallets.held(account)

        clock.now += IDLE_AFTER_S
        await leases.tick()
        await eventually(lambda: neighbours.wallets.available[account] == 10**9 - 600_000)
        spending = await leases.spend(account, "m", 1)

        assert held > 600_000
        assert spending.amount == 600_000

    async def test_an_account_that_turns_postpaid_gets_its_reserved_credit_back(
        self, leases: LeaseManager, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        wallets = neighbours.wallets
        wallets.top_up(account, "1")
        await leases.spend(account, "m", 1)
        del wallets.available[account]
        clock.now += SPENDABLE_S
        await leases.spend(account, "m", 1)

        await leases.tick()
        await leases.release()
        before = len(neighbours.lease_requests)
        await leases.tick()
        await leases.release()

        assert neighbours.lease_requests[-1]["release"]
        assert neighbours.lease_requests[-1]["spent"] == "0.0006"
        assert len(neighbours.lease_requests) == before

    async def test_a_request_cancelled_at_any_moment_leaves_nothing_reserved(
        self, leases: LeaseManager, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        spent = 0
        for number in range(40):
            rows = 100 * number  # more than is reserved, so that it waits
            waiting = asyncio.create_task(leases.spend(account, "m", rows))
            await asyncio.sleep(number / 10_000)
            waiting.cancel()
            [outcome] = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(outcome, Spending):
                spent += outcome.amount

        await leases.release()

        assert neighbours.wallets.available[account] == 10**9 - spent

    async def test_credit_granted_while_the_process_stops_is_given_back(
        self, leases: LeaseManager, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        spent = (await leases.spend(account, "m", 1)).amount
        refused = asyncio.create_task(leases.spend(account, "m", 1_000_000))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(leases.spend(account, "m", 5_000))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(PaymentRequired):
            await refused
        async with asyncio.timeout(30):
            while len(neighbours.lease_requests) < 4:
                await asyncio.sleep(0)

        await leases.release()

        assert neighbours.wallets.available[account] == 10**9 - spent
