"""Work that nobody waits for any more is dropped before it runs, and not billed."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from harness.clients import PLAIN
from harness.raw_http import Connection
from services.inference.settings import InferenceSettings
from tests.integration.inference import crafted
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW, Store
from tests.integration.inference.trials import PRICE, Trial, ask, metric, process

NUMBERS = "/v1/models/numbers:predict"
TIMEOUT = "X-Request-Timeout"
FAILURES = "tollgate_inference_failures_total"
ATTEMPTS = 100
"""How often to try to arrive while the thread is busy."""


@pytest.fixture
async def slow(
    samples: Store, settings: InferenceSettings, neighbours: Neighbours, tmp_path: Path
) -> AsyncIterator[str]:
    """Run a process with one thread for a slow model; return its URL."""
    trial = Trial(samples, tmp_path)
    version = crafted.publish(trial, crafted.slow())
    trial.release_manager.release("price", version=version)
    own = trial.settings(settings)
    async with process(own, INFERENCE_PREDICT_THREADS="1") as url:
        yield url


@asynccontextmanager
async def busy(url: str, neighbours: Neighbours) -> AsyncIterator[httpx.AsyncClient]:
    """Keep the thread busy, and further requests waiting for it."""
    token = neighbours.token()
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, verify=PLAIN, timeout=30, limits=limits
    ) as http:

        async def keep_asking() -> None:
            while True:
                assert (await ask(http, token)).status_code == 200

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        try:
            await asyncio.sleep(0.1)
            yield http
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


def request(port: int, token: str) -> Connection:
    """Send a prediction request, and close this side of the connection."""
    body = orjson.dumps({"instances": [[2.0, 3.0]]})
    connection = Connection(port)
    connection.send(
        f"POST {PRICE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    connection.finish()
    return connection


class TestDeadline:
    @pytest.mark.costly
    @pytest.mark.parametrize("value", ["30", "0.5", "999999999.123456789"])
    async def test_a_request_that_begins_in_time_is_answered_and_billed(
        self,
        client: httpx.AsyncClient,
        neighbours: Neighbours,
        account: str,
        bearer: dict[str, str],
        value: str,
    ) -> None:
        answer = await client.post(
            NUMBERS, json={"instances": [NUMBERS_ROW]}, headers={**bearer, TIMEOUT: value}
        )

        assert answer.status_code == 200
        event = answer.headers["x-usage-event"]
        await eventually(lambda: neighbours.charged_to(account) == [event])

    @pytest.mark.parametrize(
        "value", ["", "0", "0.0", "-1", "1e3", "inf", "nan", "1s", "1,5", "9" * 10]
    )
    async def test_an_invalid_timeout_is_400(
        self, client: httpx.AsyncClient, bearer: dict[str, str], value: str
    ) -> None:
        answer = await client.post(
            NUMBERS, json={"instances": [NUMBERS_ROW]}, headers={**bearer, TIMEOUT: value}
        )

        assert answer.status_code == 400
        assert "X-Request-Timeout" in answer.json()["detail"]

    async def test_a_repeated_timeout_is_400(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        headers = [*bearer.items(), (TIMEOUT, "1"), (TIMEOUT, "1")]

        answer = await client.post(NUMBERS, json={"instances": [NUMBERS_ROW]}, headers=headers)

        assert answer.status_code == 400

    async def test_a_request_whose_deadline_passed_is_503_and_not_billed(
        self,
        client: httpx.AsyncClient,
        neighbours: Neighbours,
        account: str,
        bearer: dict[str, str],
    ) -> None:
        late = await client.post(
            NUMBERS,
            json={"instances": [NUMBERS_ROW]},
            headers={**bearer, TIMEOUT: "0.000000001"},
        )
        after = await client.post(NUMBERS, json={"instances": [NUMBERS_ROW]}, headers=bearer)

        assert (late.status_code, late.json()["type"]) == (503, "urn:tollgate:problem:abandoned")
        assert late.headers["retry-after"] == "1"
        event = after.headers["x-usage-event"]
        await eventually(lambda: neighbours.charged_to(account) == [event])

    @pytest.mark.costly
    async def test_a_request_that_waits_for_a_thread_beyond_its_deadline_is_503_and_not_billed(
        self, slow: str, neighbours: Neighbours
    ) -> None:
        account = str(uuid.uuid4())
        headers = {"Authorization": f"Bearer {neighbours.token(account=account)}"}
        body = {"instances": [[2.0, 3.0]]}
        answered: list[str] = []
        late = 0
        async with busy(slow, neighbours) as http:
            for _ in range(ATTEMPTS):
                answer = await http.post(PRICE, json=body, headers={**headers, TIMEOUT: "0.002"})
                if answer.status_code == 200:  # the thread happened to be idle
                    answered.append(answer.headers["x-usage-event"])
                else:
                    late += answer.json()["type"] == "urn:tollgate:problem:abandoned"
                if late == 3:
                    break
            last = await http.post(PRICE, json=body, headers=headers)
            answered.append(last.headers["x-usage-event"])

            await eventually(lambda: answered[-1] in neighbours.charged_to(account))

        assert late == 3
        assert neighbours.charged_to(account) == answered


@pytest.mark.costly
class TestClosedConnections:
    async def test_a_request_that_waits_is_dropped_and_not_billed_if_its_client_closes(
        self, slow: str, neighbours: Neighbours
    ) -> None:
        account = str(uuid.uuid4())
        token = neighbours.token(account=account)
        port = int(slow.rpartition(":")[2])
        sent, dropped = 0, 0.0
        async with busy(slow, neighbours) as http:
            while dropped < 3 and sent < ATTEMPTS:
                (await asyncio.to_thread(request, port, token)).__exit__()
                sent += 1
                await asyncio.sleep(0.2)
                dropped = await metric(http, FAILURES, model="price", status="503")
            last = await ask(http, token)
            dropped = await metric(http, FAILURES, model="price", status="503")

            event = last.headers["x-usage-event"]
            await eventually(lambda: event in neighbours.charged_to(account))

        assert dropped >= 3
        assert len(neighbours.charged_to(account)) == sent - dropped + 1

    async def test_a_waiting_request_of_a_client_that_closed_its_own_side_gets_503(
        self, slow: str, neighbours: Neighbours
    ) -> None:
        token = neighbours.token()
        port = int(slow.rpartition(":")[2])
        problems: list[str] = []
        async with busy(slow, neighbours):
            for _ in range(ATTEMPTS):
                with await asyncio.to_thread(request, port, token) as half_closed:
                    status, _, answer = await asyncio.to_thread(half_closed.read)
                if status == 503:
                    problems.append(answer["type"])
                    break

        assert problems == ["urn:tollgate:problem:abandoned"]

    async def test_a_client_that_only_closes_its_own_side_is_answered_if_no_request_waits(
        self, slow: str, neighbours: Neighbours
    ) -> None:
        token = neighbours.token()
        port = int(slow.rpartition(":")[2])

        with await asyncio.to_thread(request, port, token) as half_closed:
            status, _, answer = await asyncio.to_thread(half_closed.read)

        assert (status, answer) == (200, {"predictions": [5.0]})
