"""Prepaid money and rate limits as a caller feels them, and what billing is told of it."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from services.common.errors import Unavailable
from services.common.http import http_client
from services.inference.metering import terms as terms_module
from services.inference.metering.accounts import PaymentRequired
from services.inference.metering.billing import BillingClient
from services.inference.metering.slices import HOLDS_S
from services.inference.metering.terms import Spending, Terms
from services.inference.settings import InferenceSettings
from tests.inference.conftest import eventually, serving
from tests.inference.neighbours import Neighbours, running
from tests.inference.samples import NUMBERS_ROW

NUMBERS = "/v1/models/numbers:predict"
ONE = {"instances": [NUMBERS_ROW]}
"""A request of one row: 0.0006 at the neighbours' price."""


@pytest.fixture
def predict(
    client: httpx.AsyncClient, bearer: dict[str, str]
) -> Callable[..., "asyncio.Task[httpx.Response]"]:
    def start(rows: int = 1, key: str | None = None) -> "asyncio.Task[httpx.Response]":
        headers = bearer if key is None else {**bearer, "Idempotency-Key": key}
        body = {"instances": [NUMBERS_ROW] * rows}
        return asyncio.create_task(client.post(NUMBERS, json=body, headers=headers))

    return start


Predict = Callable[..., "asyncio.Task[httpx.Response]"]


class TestPrepaid:
    async def test_credit_is_spent_to_the_last_billionth_and_no_further(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")

        answers = await asyncio.gather(*(predict() for _ in range(15)))

        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] * 10 + [402] * 5
        await eventually(lambda: neighbours.wallets.balance(account) == 0)
        assert len(neighbours.charged_to(account)) == 10

    async def test_a_large_request_that_cannot_be_paid_leaves_the_credit_to_smaller_ones(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")

        large, small = await predict(rows=2), await predict(rows=1)

        assert (large.status_code, small.status_code) == (402, 200)
        assert large.json()["type"] == "urn:tollgate:problem:payment_required"

    async def test_no_call_is_made_on_the_way_while_the_slice_lasts(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await predict()
        neighbours.failing = {"/leases": 500}

        assert [(await predict()).status_code for _ in range(5)] == [200] * 5

    async def test_while_billing_is_away_a_slice_is_spent_and_then_503(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await predict()
        held = neighbours.wallets.held(account)
        neighbours.failing = {"/leases": 500, "/events": 500}

        statuses = [(await predict()).status_code for _ in range(15)]

        assert held == 10 * 600_000
        assert statuses == [200] * 9 + [503] * 6
        neighbours.failing = {}
        assert (await predict()).status_code == 200

    async def test_a_top_up_is_felt_at_once(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0")
        assert (await predict()).status_code == 402

        async def pays() -> bool:
            return (await predict()).status_code == 200

        neighbours.wallets.top_up(account, "1")
        await eventually(pays, within_s=1.0)

    async def test_credit_held_by_another_process_is_503_and_comes_back_when_it_is_released(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        wallets = neighbours.wallets
        wallets.top_up(account, "1")
        ask = {"account": account, "journal": str(uuid.uuid4()), "spent": "0"}
        greedy = {**ask, "ask_no": 1, "at_least": "1", "want": "1", "release": False}
        assert wallets.ask(greedy) == ("ok", "1")

        refused = await predict()
        wallets.ask({**greedy, "ask_no": 2, "release": True})
        await asyncio.sleep(0.6)

        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["type"] == "urn:tollgate:problem:credit_held_elsewhere"
        assert (await predict()).status_code == 200

    async def test_what_fails_costs_nothing(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")

        failed = await predict(rows=0)
        answered = await predict()

        assert (failed.status_code, answered.status_code) == (422, 200)

    async def test_a_repeat_costs_nothing_in_the_end(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")

        for _ in range(3):
            assert (await predict(key="k")).status_code == 200

        await eventually(
            lambda: len([e for e in neighbours.events if e["subject"] == account]) == 3
        )
        assert neighbours.wallets.balance(account) == 10**9 - 600_000

    async def test_the_repeat_of_a_paid_answer_is_served_at_balance_0_and_moves_no_money(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        first = await predict(key="k")
        await eventually(lambda: neighbours.wallets.balance(account) == 0)

        repeat = await predict(key="k")
        other = await predict(key="another")

        assert (first.status_code, repeat.status_code, other.status_code) == (200, 200, 402)
        for header in ("x-usage-event", "x-usage-amount"):
            assert repeat.headers[header] == first.headers[header]
        assert repeat.json() == first.json()
        await asyncio.sleep(0.2)
        assert neighbours.wallets.available[account] == 0
        assert neighbours.wallets.held(account) == 0

    async def test_whether_an_answer_was_paid_is_not_guessed(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        first = await predict(key="k")
        path = f"/usage/events/{first.headers['x-usage-event']}"
        neighbours.failing = {path: 500}

        assert (await predict(key="k")).status_code == 503

    async def test_after_a_lost_answer_requests_wait_for_the_next_one(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")
        await predict()
        neighbours.losing = {"/leases"}

        too_much = await predict(rows=100)
        lost = await predict()
        neighbours.losing = set()
        found = await predict()

        assert (too_much.status_code, lost.status_code, found.status_code) == (503, 503, 200)

    async def test_more_is_asked_for_before_the_slice_runs_out(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await predict()
        first = neighbours.wallets.held(account)
        await asyncio.sleep(0.25)

        for _ in range(6):
            await predict()

        await eventually(lambda: neighbours.wallets.held(account) > first)
        background = [ask for ask in neighbours.asks if ask["account"] == account][2:]
        assert {ask["at_least"] for ask in background} == {"0"}

    async def test_what_an_idle_account_holds_is_given_back(
        self,
        predict: Predict,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(terms_module, "IDLE_AFTER_S", 0.3)
        neighbours.wallets.top_up(account, "1")
        await predict()
        assert neighbours.wallets.held(account) > 0

        await eventually(lambda: neighbours.wallets.held(account) == 0)

        assert (await predict()).status_code == 200
        assert neighbours.wallets.balance(account) >= 10**9 - 2 * 600_000

    async def test_a_stopping_process_gives_everything_back_and_closes_its_journal(
        self, settings: InferenceSettings, neighbours: Neighbours, tmp_path: Path
    ) -> None:
        account = str(uuid.uuid4())
        headers = {"Authorization": f"Bearer {neighbours.token(account=account)}"}
        neighbours.wallets.top_up(account, "1")

        async with serving(settings.model_copy(update={"journal_dir": tmp_path})) as client:
            await client.post(NUMBERS, json=ONE, headers=headers)
            assert neighbours.wallets.held(account) > 0

        asks = [ask for ask in neighbours.asks if ask["account"] == account]
        assert asks[-1]["release"]
        assert asks[-1]["spent"] == "0.0006"
        assert neighbours.wallets.available[account] == 10**9 - 600_000
        assert not [key for key in neighbours.wallets.slices if key[0] == account]


class TestRateLimit:
    async def test_more_than_the_share_is_429_with_the_ietf_fields(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.5, "burst": 3}

        answers = await asyncio.gather(*(predict() for _ in range(5)))

        refused = [answer for answer in answers if answer.status_code == 429]
        assert [answer.status_code for answer in answers].count(200) == 3
        assert len(refused) == 2
        assert refused[0].headers["retry-after"] == "2"
        assert refused[0].headers["ratelimit-policy"] == '"default";q=3;w=6'
        assert refused[0].headers["ratelimit"] == '"default";r=0;t=2'
        assert refused[0].json()["type"] == "urn:tollgate:problem:rate_limited"

    async def test_a_refusal_is_reported_as_demand_within_a_second_and_a_new_share_is_felt(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.01, "burst": 1}
        await asyncio.gather(*(predict() for _ in range(5)))

        neighbours.rate_limit = {"per_second": 1_000, "burst": 100}

        async def passes() -> bool:
            return (await predict()).status_code == 200

        await eventually(passes, within_s=1.5)
        demand = [ask["demand"] for ask in neighbours.asks if ask["account"] == account][1]
        assert demand >= 4


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
