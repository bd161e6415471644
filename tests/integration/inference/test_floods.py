"""What one account sends, however much of it, leaves the others their answers and the memory.

On a real process and real sockets. Speed is printed, never asserted.
"""

import asyncio
import http.client
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import httpx
import orjson
import pytest

from harness.clients import PLAIN
from services.common.errors import BodyInvalid
from services.inference.api import json_structure
from services.inference.api.json_body import SLACK, open_object
from services.inference.api.json_structure import JsonLimits
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually
from tests.integration.inference.flood_bodies import (
    BODY_BYTES,
    MIB,
    MIXED,
    REFUSED,
    SHARE_BYTES,
    TOTAL_BYTES,
    V1,
    V2,
    refused_request,
)
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW
from tests.integration.inference.trials import metric, process


def report(line: str) -> None:
    """Print a measurement; visible with `pytest -s`."""
    sys.stdout.write(line + "\n")


@dataclass
class Server:
    """The process under attack."""

    url: str
    neighbours: Neighbours
    worst_s: float = field(default=0.0)
    """The slowest response of `/healthz` during the last attack."""
    tokens: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def client(self, account: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        token = self.token(account or str(uuid.uuid4()))
        async with httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            verify=PLAIN,
            timeout=60,
        ) as client:
            yield client

    def token(self, account: str) -> str:
        if account not in self.tokens:
            self.tokens[account] = self.neighbours.token(account=account)
        return self.tokens[account]

    def send(self, account: str, path: str, body: bytes, *, times: int) -> list[int]:
        """Send a body repeatedly over one connection, and return the statuses."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        headers = {"Authorization": f"Bearer {self.token(account)}"}
        statuses = []
        for _ in range(times):
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    async def is_idle(self) -> bool:
        async with self.client() as client:
            return not await metric(client, "tollgate_inference_request_bytes")

    async def memory(self) -> int:
        """Return the resident memory of the process in bytes."""
        async with self.client() as client:
            return int(await metric(client, "process_resident_memory_bytes"))

    async def answer_others(self, attack: Awaitable[object]) -> int:
        """Run an attack; return how many predictions another account got meanwhile."""
        attacking = asyncio.ensure_future(attack)
        answered, self.worst_s = 0, 0.0
        async with self.client() as other:
            while not attacking.done() or not answered:
                began = time.perf_counter()
                alive = await other.get("/healthz")
                self.worst_s = max(self.worst_s, time.perf_counter() - began)
                predicted = await other.post(V1, json={"instances": [NUMBERS_ROW]})
                assert (alive.status_code, predicted.status_code) == (200, 200)
                answered += 1
        await attacking
        return answered


@pytest.fixture(scope="module")
async def running(
    settings: InferenceSettings, running_neighbours: Neighbours
) -> AsyncIterator[Server]:
    async with process(settings) as url:
        yield Server(url, running_neighbours)


@pytest.fixture
def server(running: Server, neighbours: Neighbours) -> Server:
    return running


class TestRefusedBodies:
    @pytest.mark.parametrize("kind", REFUSED)
    async def test_do_not_affect_other_accounts_and_cost_nothing(
        self, server: Server, neighbours: Neighbours, account: str, kind: str
    ) -> None:
        path, body = refused_request(kind)
        sending = [asyncio.to_thread(server.send, account, path, body, times=1) for _ in range(3)]
        flood = asyncio.gather(*sending)

        answered = await server.answer_others(flood)

        statuses = [status for each in flood.result() for status in each]
        report(f"{kind}: {answered} others, /healthz at worst {server.worst_s * 1000:.0f} ms")
        assert statuses == [400 if path == V2 else 422] * 3
        assert answered >= len(statuses) // 2
        assert neighbours.charged_to(account) == []

    @pytest.mark.costly
    @pytest.mark.parametrize("kind", REFUSED)
    def test_are_parsed_in_short_steps(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = [0]

        def loads(text: bytes) -> Any:
            steps.append(len(text))
            return orjson.loads(text)

        parser = SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError)
        monkeypatch.setattr(json_structure, "orjson", parser)
        as_wide_as_possible = JsonLimits(commas=10**9, containers=10**9, members=SLACK)

        body = refused_request(kind, size=3 * json_structure.MAX_VALUE_BYTES)[1]
        with suppress(BodyInvalid), open_object(body, as_wide_as_possible):
            pass

        assert max(steps) <= json_structure.MAX_VALUE_BYTES

    @pytest.mark.parametrize(
        ("path", "headers", "size", "status"),
        [
            (V1, {"Idempotency-Key": ""}, 2, 400),
            (V1, {"Inference-Header-Content-Length": "x"}, 2, 400),
            (V1, {"Content-Encoding": "gzip"}, 2, 415),
            (V1, {}, BODY_BYTES + 1, 413),
            ("/v1/models/unknown:predict", {}, 2, 404),
        ],
    )
    async def test_refused_by_their_head_count_against_the_rate_limit(
        self,
        server: Server,
        neighbours: Neighbours,
        account: str,
        path: str,
        headers: dict[str, str],
        size: int,
        status: int,
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 2}

        async with server.client(account) as client:
            answers = [
                await client.post(path, content=b" " * size, headers=headers) for _ in range(3)
            ]

        assert [answer.status_code for answer in answers] == [status, status, 429]

    async def test_count_against_the_rate_limit(
        self, server: Server, neighbours: Neighbours, account: str
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 3}

        async with server.client(account) as client:
            refused = [await client.post(V1, content=b"{}") for _ in range(3)]
            limited = [
                await client.post(V1, content=refused_request("empty lists")[1]),
                await client.post(V1, json={"instances": [NUMBERS_ROW]}),
            ]

        assert [answer.status_code for answer in refused] == [422] * 3
        assert [answer.status_code for answer in limited] == [429] * 2
        assert all(answer.headers["retry-after"] for answer in limited)

    async def test_report_at_most_fifty_columns(self, server: Server, account: str) -> None:
        row = {f"column {number}": 1 for number in range(5_000)}

        async with server.client(account) as client:
            answer = await client.post(V1, json={"instances": [row] * 2})

        assert answer.status_code == 422
        assert len(answer.json()["errors"]) == 50


class TestLargeBodies:
    async def test_are_answered_while_another_account_sends_bad_ones(
        self, server: Server, account: str
    ) -> None:
        rows = [[number / 7, number / 11, number / 13] for number in range(10_000)]
        answers: list[list[int]] = []

        async def predict_many() -> None:
            async with server.client(account) as client:
                for _ in range(3):
                    answer = await client.post(V1, json={"instances": rows})
                    assert answer.status_code == 200
                    answers.append(answer.json()["predictions"])

        other, body = str(uuid.uuid4()), refused_request("escapes")[1]
        bad_ones = asyncio.to_thread(server.send, other, V1, body, times=6)

        await server.answer_others(asyncio.gather(predict_many(), bad_ones))

        assert len(answers[0]) == 10_000
        assert answers[0] == answers[1] == answers[2]
        async with server.client(account) as client:
            few = await client.post(V1, json={"instances": rows[:100]})
        assert few.json()["predictions"] == answers[0][:100]

    @pytest.mark.costly
    async def test_of_text_get_the_same_predictions_as_small_ones(
        self, server: Server, account: str
    ) -> None:
        rows = [MIXED_ROW | {"size": number / 1_000} for number in range(9_999)]

        async with server.client(account) as client:
            whole = await client.post(MIXED, json={"instances": rows})
            parts = [
                await client.post(MIXED, json={"instances": rows[start : start + 99]})
                for start in range(0, 9_999, 99)
            ]

        together = [label for part in parts for label in part.json()["predictions"]]
        assert whole.json()["predictions"] == together

    async def test_have_the_same_event_for_a_key_in_any_order_of_members(
        self, server: Server, account: str
    ) -> None:
        data = [number / 7 for number in range(30_000)]
        tensor = {"name": "features", "datatype": "FP64", "shape": [10_000, 3], "data": data}
        first = {"id": "1", "inputs": [tensor], "parameters": {"x": "12:30"}}
        again = {"parameters": {"x": "12:30"}, "inputs": [tensor], "id": "2"}

        async with server.client(account) as client:
            events = [
                (await client.post(V2, json=body, headers={"Idempotency-Key": "k"})).headers[
                    "x-usage-event"
                ]
                for body in (first, again, first | {"parameters": {"x": "12:31"}})
            ]

        assert events[0] == events[1] != events[2]


@pytest.mark.costly
class TestUnfinishedBodies:
    async def test_occupy_no_slot(self, server: Server) -> None:
        accounts = [str(uuid.uuid4()) for _ in range(4)]

        async with AsyncExitStack() as stack:
            for account in accounts:
                for _ in range(256):
                    await stack.enter_async_context(Unfinished(server, account, b"{"))
            async with server.client() as other, server.client(accounts[0]) as same:
                for client in (other, same):
                    answer = await client.post(V1, json={"instances": [NUMBERS_ROW]})
                    assert answer.status_code == 200
                assert await metric(other, "tollgate_inference_requests_in_flight") == 0

    async def test_of_one_account_use_no_more_memory_than_its_share(
        self, server: Server, account: str
    ) -> None:
        before = await server.memory()
        part = b" " * (BODY_BYTES - 1)

        async with AsyncExitStack() as stack:
            requests = [Unfinished(server, account, part) for _ in range(60)]
            for request in requests:
                await stack.enter_async_context(request)
            async with server.client() as other:
                await eventually(lambda: sum(each.answer.done() for each in requests) >= 60 - 16)
                held = await metric(other, "tollgate_inference_request_bytes")
                grown = await server.memory() - before
                answer = await other.post(V1, json={"instances": [NUMBERS_ROW]})
            refusals = [each.answer.result() for each in requests if each.answer.done()]

        report(f"{held / MIB:.0f} MiB of bodies, {grown / MIB:.0f} MiB more in memory")
        assert all(refusal.startswith(b"HTTP/1.1 503") for refusal in refusals)
        assert all(b"retry-after" in refusal for refusal in refusals)
        assert held <= SHARE_BYTES
        assert grown <= SHARE_BYTES + 64 * MIB
        assert answer.status_code == 200
        await eventually(server.is_idle)


@pytest.mark.slow  # TestUnfinishedBodies watches the memory of what one account sends, too
async def test_large_requests_of_text_use_no_more_memory_than_documented(
    settings: InferenceSettings, neighbours: Neighbours, account: str
) -> None:
    row = b'{"size":1,"colour":"%b","sold":true}'
    rows = b",".join(row % (b"%06d" % number) for number in range(10_000))
    body = b'{"instances":[%b]}' % rows
    async with process(settings) as url:
        server = Server(url, neighbours)
        before = await server.memory()

        async def send() -> int:
            async with server.client(account) as client:
                return (await client.post(MIXED, content=body)).status_code

        statuses = await asyncio.gather(*(send() for _ in range(60)))
        grown = await server.memory() - before

    report(f"{statuses.count(200)} answered, {grown / MIB:.0f} MiB more in memory")
    assert set(statuses) <= {200, 503}
    assert grown <= TOTAL_BYTES + 36 * BODY_BYTES


class Unfinished:
    """A request whose last bytes never arrive; `answer` completes if there is a response anyway."""

    def __init__(self, server: Server, account: str, part: bytes) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._head = (
            f"POST {V1} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token(account)}\r\n"
            f"Content-Length: {BODY_BYTES}\r\n\r\n"
        ).encode()
        self._part = part

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection(*self._address)
        self.answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        self._writer.write(self._head + self._part)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.cancel()
        self._writer.close()
        await asyncio.gather(self.answer, return_exceptions=True)
