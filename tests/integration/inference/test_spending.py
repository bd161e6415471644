"""Prepaid credit and rate limits as a caller sees them, and what billing learns of it."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

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

    async def test_a_request_that_is_too_expensive_leaves_the_credit_to_smaller_ones(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")

        large, small = await predict(rows=2), await predict(rows=1)

        assert (large.status_code, small.status_code) == (402, 200)
        assert large.json()["type"] == "urn:tollgate:problem:payment_required"

    async def test_while_the_reservation_lasts_no_request_calls_billing(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await predict()
        neighbours.failing = {"/leases": 500}

        assert [(await predict()).status_code for _ in range(5)] == [200] * 5

    async def test_while_billing_is_away_the_reservation_is_spent_and_then_503(
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

    async def test_a_top_up_takes_effect_at_once(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0")
        assert (await predict()).status_code == 402

        async def pays() -> bool:
            return (await predict()).status_code == 200

        neighbours.wallets.top_up(account, "1")
        await eventually(pays)

    async def test_credit_reserved_by_another_process_is_503_until_it_is_released(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        wallets = neighbours.wallets
        wallets.top_up(account, "1")
        request = {"account": account, "journal": str(uuid.uuid4()), "spent": "0"}
        greedy = {**request, "sequence": 1, "minimum": "1", "desired": "1", "release": False}
        assert wallets.lease(greedy) == ("ok", "1")

        refused = await predict()
        wallets.lease({**greedy, "sequence": 2, "release": True})
        await asyncio.sleep(0.6)

        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["type"] == "urn:tollgate:problem:credit_reserved_elsewhere"
        assert (await predict()).status_code == 200

    async def test_retry_after_says_when_a_lost_process_credit_comes_back(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.retry_after = 437
        neighbours.wallets.top_up(account, "1")
        lost = {"account": account, "journal": str(uuid.uuid4()), "spent": "0", "sequence": 1}
        neighbours.wallets.lease({**lost, "minimum": "1", "desired": "1", "release": False})

        first, at_once = await predict(), await predict()

        for refused in (first, at_once):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "437")
            assert refused.json()["detail"].endswith("retry in 437 s.")

    async def test_credit_beyond_64_bits_is_reserved_and_spent(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        for _ in range(20):
            neighbours.wallets.top_up(account, "1000000000000")
        neighbours.price = {"per_request": "999999999999.000000001", "per_row": "1"}

        answers = [await predict() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200] * 3
        assert answers[0].headers["x-usage-amount"] == "1000000000000.000000001 USD"
        await eventually(lambda: len(neighbours.charged_to(account)) == 3)

    async def test_a_failed_request_costs_nothing(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")

        failed = await predict(rows=0)
        answered = await predict()

        assert (failed.status_code, answered.status_code) == (422, 200)

    async def test_a_repeat_costs_nothing(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")

        for _ in range(3):
            assert (await predict(key="k")).status_code == 200

        await eventually(
            lambda: len([e for e in neighbours.events if e["subject"] == account]) == 3
        )
        assert neighbours.wallets.balance(account) == 10**9 - 600_000

    async def test_the_repeat_of_a_charged_request_is_served_at_balance_0_and_moves_no_money(
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

    async def test_a_repeat_is_served_at_balance_0_before_billing_has_the_first_event(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        neighbours.failing = {"/events": 503}

        first = await predict(key="k")
        repeat = await predict(key="k")
        other = await predict(key="another")

        assert [first.status_code, repeat.status_code, other.status_code] == [200, 200, 402]
        assert repeat.headers["x-usage-event"] == first.headers["x-usage-event"]

    async def test_whether_a_request_was_charged_is_not_guessed(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0006")
        first = await predict(key="k")
        path = f"/usage/events/{first.headers['x-usage-event']}"
        neighbours.failing = {path: 500}

        assert (await predict(key="k")).status_code == 503

    async def test_after_a_lost_response_requests_wait_for_the_next_one(
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

    async def test_more_credit_is_requested_before_the_reservation_runs_out(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "1")
        await predict()
        first = neighbours.wallets.held(account)
        await asyncio.sleep(0.25)

        for _ in range(6):
            await predict()

        await eventually(lambda: neighbours.wallets.held(account) > first)
        minima = [
            request["minimum"]
            for request in neighbours.lease_requests
            if request["account"] == account
        ]
        assert minima.count("0.0006") == 1  # only the first request waited for credit
        assert minima[-1] == "0"

    async def test_a_stopping_process_gives_everything_back_and_closes_its_journal(
        self, settings: InferenceSettings, neighbours: Neighbours, tmp_path: Path
    ) -> None:
        account = str(uuid.uuid4())
        headers = {"Authorization": f"Bearer {neighbours.token(account=account)}"}
        neighbours.wallets.top_up(account, "1")

        async with serving(settings.model_copy(update={"journal_dir": tmp_path})) as client:
            await client.post(NUMBERS, json=ONE, headers=headers)
            assert neighbours.wallets.held(account) > 0

        requests = [
            request for request in neighbours.lease_requests if request["account"] == account
        ]
        assert requests[-1]["release"]
        assert requests[-1]["spent"] == "0.0006"
        assert neighbours.wallets.available[account] == 10**9 - 600_000
        assert not [key for key in neighbours.wallets.reservations if key[0] == account]


class TestRateLimit:
    async def test_more_than_the_share_is_429_with_the_ietf_fields(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.5, "burst": 3}

        answers = await asyncio.gather(*(predict() for _ in range(5)))

        refused = [answer for answer in answers if answer.status_code == 429]
        served = [answer for answer in answers if answer.status_code == 200]
        assert len(served) == 3
        assert len(refused) == 2
        assert refused[0].headers["retry-after"] == "2"
        assert refused[0].headers["ratelimit-policy"] == '"default";q=3;w=6'
        assert refused[0].headers["ratelimit"] == '"default";r=0;t=2'
        assert refused[0].json()["type"] == "urn:tollgate:problem:rate_limited"

    async def test_every_prediction_says_what_is_left_of_the_limit(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.01, "burst": 3}

        answers = [await predict() for _ in range(4)]

        fields = [answer.headers["ratelimit"] for answer in answers]
        assert [field.partition(";t=")[0] for field in fields] == [
            f'"default";r={left}' for left in (2, 1, 0, 0)
        ]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=3;w=300'}

    async def test_without_a_limit_there_are_no_fields(
        self, predict: Predict, account: str
    ) -> None:
        answer = await predict()

        assert "ratelimit" not in answer.headers
        assert "ratelimit-policy" not in answer.headers

    async def test_even_a_tiny_share_has_a_finite_retry_after(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 5e-324, "burst": 1}

        answers = [await predict() for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].headers["retry-after"] == "31536000"
        assert answers[1].headers["ratelimit"] == '"default";r=0;t=31536000'

    async def test_a_refusal_is_reported_as_demand_and_a_new_share_takes_effect(
        self, predict: Predict, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.01, "burst": 1}
        await asyncio.gather(*(predict() for _ in range(5)))

        neighbours.rate_limit = {"per_second": 1_000, "burst": 100}

        async def passes() -> bool:
            return (await predict()).status_code == 200

        await eventually(passes)
        reported = sum(
            request["demand"]
            for request in neighbours.lease_requests
            if request["account"] == account
        )
        assert reported >= 4
