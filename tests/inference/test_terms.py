"""Terms and slices as time passes, with a clock that tests move."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.common.errors import Unavailable
from services.common.http import http_client
from services.inference.metering.accounts import PaymentRequired
from services.inference.metering.billing import BillingClient
from services.inference.metering.rates import RateLimited
from services.inference.metering.slices import HOLDS_S
from services.inference.metering.terms import Spending, Terms
from tests.inference.conftest import eventually
from tests.inference.neighbours import Neighbours, running


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class TestClock:
    @pytest.fixture
    async def neighbours(self) -> AsyncIterator[Neighbours]:
        """Neighbours whom no other process asks anything."""
        async with running(Neighbours()) as started:
            yield started

    @pytest.fixture
    async def billing(self, neighbours: Neighbours) -> AsyncIterator[BillingClient]:
        async with http_client() as http:
            yield BillingClient(
                http,
                billing_url=neighbours.url,
                auth_url=neighbours.url,
                client_id="inference",
                client_secret=SecretStr("secret"),
            )

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def terms(self, billing: BillingClient, clock: Clock) -> Terms:
        return Terms(billing, journal=str(uuid.uuid4()), max_age_s=3600, clock=clock)

    async def test_eight_minutes_after_its_last_answered_ask_nothing_prepaid_is_spent(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await terms.spend(account, "m", 1)
        neighbours.failing = {"/leases": 500}
        clock.now += HOLDS_S - 1
        await terms.spend(account, "m", 1)

        clock.now += 1
        with pytest.raises(Unavailable):
            await terms.spend(account, "m", 1)

    async def test_postpaid_accounts_go_on_for_an_hour(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        await terms.spend(account, "m", 1)
        neighbours.failing = {"/leases": 500}
        clock.now += 3_599
        await terms.spend(account, "m", 1)

        clock.now += 1
        with pytest.raises(Unavailable):
            await terms.spend(account, "m", 1)

    async def test_a_refused_request_counts_before_there_is_a_price(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.5, "burst": 2}
        neighbours.status = "no_plan"

        for _ in range(2):
            await terms.admit(account)
        with pytest.raises(RateLimited):
            await terms.admit(account)

        clock.now += 2
        await terms.admit(account)

    async def test_a_request_waits_once_for_fresher_terms_that_do_not_come(
        self,
        terms: Terms,
        clock: Clock,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        waits = []

        async def count(*arguments: Any, **options: Any) -> Any:
            waits.append(options)
            raise Unavailable("Slow.")

        await terms.spend(account, "m", 1)
        clock.now += 31
        monkeypatch.setattr(terms, "_wait", count)

        await terms.admit(account)
        await terms.spend(account, "m", 1)

        assert len(waits) == 1

    async def test_an_account_that_comes_back_after_a_pause_is_served_at_the_price_of_now(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        before = await terms.spend(account, "m", 1)
        neighbours.price_id = "price-2"
        clock.now += 31

        after = await terms.spend(account, "m", 1)

        assert (before.price_id, after.price_id) == ("price-1", "price-2")

    async def test_terms_in_use_are_asked_again_after_twenty_seconds_and_unused_ones_are_not(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        unused = str(uuid.uuid4())
        await asyncio.gather(terms.spend(account, "m", 1), terms.spend(unused, "m", 1))
        clock.now += 21
        await terms.spend(account, "m", 1)
        before = len(neighbours.asks)

        await terms.tick()
        await terms.release()

        assert [ask["account"] for ask in neighbours.asks[before:]] == [account]

    async def test_an_account_that_was_forgotten_still_knows_what_it_spent(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0012")
        await terms.spend(account, "m", 1)
        for _ in range(2):
            clock.now += 700
            await terms.tick()
            await terms.release()

        await terms.spend(account, "m", 1)
        clock.now += 1
        with pytest.raises(PaymentRequired):
            await terms.spend(account, "m", 1)

    async def test_a_process_that_was_given_up_as_lost_is_granted_what_it_spent_before_more(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")
        for _ in range(8):
            await terms.spend(account, "m", 1)
        neighbours.wallets.give_up(account)
        clock.now += HOLDS_S

        for _ in range(2):
            await terms.spend(account, "m", 1)
        with pytest.raises(PaymentRequired):
            await terms.spend(account, "m", 1)

    async def test_one_that_was_given_up_and_forgotten_still_knows_what_it_spent(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0012")
        await terms.spend(account, "m", 1)
        neighbours.wallets.give_up(account)
        for _ in range(3):
            clock.now += 700
            await terms.tick()
            await terms.release()

        await terms.spend(account, "m", 1)

        assert neighbours.asks[-1]["spent"] == "0.0006"

    async def test_a_request_that_waited_while_its_account_turned_postpaid_costs_the_new_price(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        await terms.spend(account, "m", 1)
        del neighbours.wallets.available[account]
        neighbours.price_id = "price-2"
        clock.now += 1

        spending = await terms.spend(account, "m", 1)

        assert (spending.price_id, spending.slice) == ("price-2", None)

    async def test_more_accounts_than_a_call_takes_are_all_answered(
        self, terms: Terms, neighbours: Neighbours
    ) -> None:
        accounts = [str(uuid.uuid4()) for _ in range(1_100)]

        spendings = await asyncio.gather(*(terms.spend(id, "m", 1) for id in accounts))

        assert {spending.amount for spending in spendings} == {600_000}
        asked = Counter(ask["account"] for ask in neighbours.asks)
        assert {asked[account] for account in accounts} == {1}

    async def test_while_billing_is_away_a_low_slice_does_not_ask_at_every_request(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.03")
        for _ in range(6):
            await terms.spend(account, "m", 1)
        neighbours.losing = {"/leases"}
        before = len(neighbours.asks)
        clock.now += 1

        for _ in range(4):
            await terms.spend(account, "m", 1)
            await eventually(lambda: len(neighbours.asks) > before)
            await asyncio.sleep(0.05)

        assert len(neighbours.asks) == before + 1

    async def test_an_account_that_turns_postpaid_gets_back_what_was_held(
        self, terms: Terms, clock: Clock, account: str, neighbours: Neighbours
    ) -> None:
        wallets = neighbours.wallets
        wallets.top_up(account, "1")
        await terms.spend(account, "m", 1)
        del wallets.available[account]
        clock.now += HOLDS_S
        await terms.spend(account, "m", 1)

        await terms.tick()
        await terms.release()
        before = len(neighbours.asks)
        await terms.tick()
        await terms.release()

        assert neighbours.asks[-1]["release"]
        assert neighbours.asks[-1]["spent"] == "0.0006"
        assert len(neighbours.asks) == before

    async def test_a_request_cancelled_at_any_moment_keeps_nothing_reserved(
        self, terms: Terms, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        spent = 0
        for number in range(40):
            rows = 100 * number  # more than is held, so that it waits
            waiting = asyncio.create_task(terms.spend(account, "m", rows))
            await asyncio.sleep(number / 10_000)
            waiting.cancel()
            [outcome] = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(outcome, Spending):
                spent += outcome.amount

        await terms.release()

        assert neighbours.wallets.available[account] == 10**9 - spent

    async def test_money_that_is_on_its_way_when_the_process_stops_is_given_back(
        self, terms: Terms, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        spent = (await terms.spend(account, "m", 1)).amount
        refused = asyncio.create_task(terms.spend(account, "m", 1_000_000))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(terms.spend(account, "m", 5_000))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(PaymentRequired):
            await refused
        async with asyncio.timeout(30):
            while len(neighbours.asks) < 4:
                await asyncio.sleep(0)

        await terms.release()

        assert neighbours.wallets.available[account] == 10**9 - spent
