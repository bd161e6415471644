"""Predictions on the fast path: the answers of the ordinary path, billed just as often."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.otlp_collector import collecting
from harness.waiting import eventually_async as eventually
from services.common.telemetry.tracing import Tracing
from services.inference.api import steps
from services.inference.settings import InferenceSettings
from tests.integration.inference.fast import (
    Client,
    Served,
    connected,
    post,
    serving_both,
)
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

V1 = "/v1/models/numbers:predict"
V2 = "/v2/models/numbers/infer"


@pytest.fixture(scope="module")
async def shared(
    settings: InferenceSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    changes = {"journal_dir": tmp_path_factory.mktemp("journal")}
    async with serving_both(settings.model_copy(update=changes)) as served:
        yield served


@pytest.fixture
def served(shared: Served, neighbours: Neighbours) -> Served:
    """Return the shared app, with auth and billing in their initial state."""
    shared.by_app.clear()
    return shared


@pytest.fixture
def authorization(neighbours: Neighbours, account: str) -> str:
    return f"Authorization: Bearer {neighbours.token(account=account)}"


def _one(**more: Any) -> bytes:
    return json.dumps({"instances": [NUMBERS_ROW], **more}).encode()


async def _warm(client: Client, authorization: str) -> None:
    """Let the app learn the token, the account and the model."""
    assert (await client.ask(post(V1, _one(), authorization))).status == 200


TENSOR = {"name": "features", "datatype": "FP64", "shape": [1, 3], "data": NUMBERS_ROW}
BODIES: dict[str, tuple[str, bytes]] = {
    "a list": (V1, _one()),
    "an object": (V1, b'{"instances": [{"a": 1, "b": 2.5, "c": null}]}'),
    "several rows": (V1, json.dumps({"instances": [NUMBERS_ROW] * 5}).encode()),
    "probabilities": (V1, _one(parameters={"probabilities": True})),
    "a signature name": (V1, _one(signature_name="serving_default")),
    "missing values": (V1, json.dumps({"instances": [[None, 1, 2.5]]}).encode()),
    "an unknown member": (V1, _one(other=1)),
    "a duplicate member": (V1, b'{"instances": [[1, 2, 3]], "instances": [[1, 2, 3]]}'),
    "a duplicate column": (V1, b'{"instances": [{"a": 1, "a": 2, "b": 3, "c": 4}]}'),
    "a boolean for a number": (V1, json.dumps({"instances": [[True, 1, 2]]}).encode()),
    "text for a number": (V1, json.dumps({"instances": [["x", 1, 2]]}).encode()),
    "a number too large for float32": (V1, b'{"instances": [[1e39, 1, 2]]}'),
    "an integer of 30 digits": (V1, b'{"instances": [[' + b"9" * 30 + b", 1, 2]]}"),
    "rows of different lengths": (V1, b'{"instances": [[1, 2, 3], [1, 2]]}'),
    "no rows": (V1, b'{"instances": []}'),
    "rows that are no lists": (V1, b'{"instances": [1, 2, 3]}'),
    "a list instead of an object": (V1, b"[1, 2, 3]"),
    "no JSON": (V1, b"{"),
    "no body": (V1, b""),
    "an unknown model": ("/v1/models/nothing:predict", _one()),
    "an unknown version": ("/v2/models/numbers/versions/nothing/infer", _one()),
    "a name with an escape": ("/v1/models/num%62ers:predict", _one()),
    "a query": (f"{V1}?a=b", _one()),
    "a tensor": (V2, json.dumps({"id": "7", "inputs": [TENSOR]}).encode()),
    "one of the outputs": (
        V2,
        json.dumps({"id": "7", "inputs": [TENSOR], "outputs": [{"name": "predict"}]}).encode(),
    ),
    "a tensor of the wrong shape": (
        V2,
        json.dumps({"inputs": [{**TENSOR, "shape": [2, 3]}]}).encode(),
    ),
    "a model of text": ("/v1/models/mixed:predict", _one()),
    "a path below": (f"{V1}/more", _one()),
}


@pytest.mark.parametrize("name", BODIES)
async def test_both_paths_answer_alike(served: Served, authorization: str, name: str) -> None:
    path, body = BODIES[name]
    request = post(path, body, authorization)

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await _warm(fast, authorization)
        replies = [await fast.ask(request), await fast.ask(request), await ordinary.ask(request)]

    assert replies[0].lasting == replies[1].lasting == replies[2].lasting


HEADERS: dict[str, tuple[str, ...]] = {
    "no token": (),
    "an empty token": ("Authorization: Bearer ",),
    "an unknown token": ("Authorization: Bearer abc",),
    "another scheme": ("Authorization: Basic abc",),
    "two tokens": ("Authorization: Bearer abc", "Authorization: Bearer abc"),
    "a lower-case scheme": ("authorization: bearer {token}",),
    "an Idempotency-Key": ("{own}", "Idempotency-Key: k"),
    "a bad Idempotency-Key": ("{own}", "Idempotency-Key: \t"),
    "two Idempotency-Keys": ("{own}", "Idempotency-Key: a", "Idempotency-Key: b"),
    "compressed content": ("{own}", "Content-Encoding: gzip"),
    "a request id": ("{own}", "X-Request-ID: mine"),
    "a bad request id": ("{own}", "X-Request-ID: a b"),
    "a bad timeout": ("{own}", "X-Request-Timeout: soon"),
    "a page's origin": ("{own}", "Origin: https://example.com"),
    "a connection to be closed": ("{own}", "Connection: close"),
    "a JSON length": ("{own}", "Inference-Header-Content-Length: 5"),
    "upper case": ("{upper}",),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_both_paths_treat_headers_alike(
    served: Served, authorization: str, name: str
) -> None:
    token = authorization.rpartition(" ")[2]
    words = {"own": authorization, "token": token, "upper": f"AUTHORIZATION: Bearer {token}"}
    request = post(V1, _one(), *(line.format(**words) for line in HEADERS[name]))

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await _warm(fast, authorization)
        replies = [await fast.ask(request), await ordinary.ask(request)]

    assert replies[0].lasting == replies[1].lasting
    if name == "a request id":
        assert [reply.headers["x-request-id"] for reply in replies] == ["mine", "mine"]


class TestWarmRequests:
    async def test_do_not_reach_the_app(self, served: Served, authorization: str) -> None:
        async with connected(served.fast) as client:
            await _warm(client, authorization)
            served.by_app.clear()

            replies = [await client.ask(post(V1, _one(), authorization)) for _ in range(5)]

        assert [reply.status for reply in replies] == [200] * 5
        assert served.by_app == []

    async def test_are_billed_once_each(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, _one(), authorization)) for _ in range(20)]

        ids = {reply.headers["x-usage-event"] for reply in replies}
        await eventually(lambda: _all_charged(neighbours, account, ids))
        assert len(ids) == 20
        assert sorted(neighbours.charged_to(account)) == sorted(ids)

    async def test_may_come_in_one_piece_or_two(self, served: Served, authorization: str) -> None:
        request = post(V1, _one(), authorization)
        head = request[: request.index(b"\r\n\r\n") + 4]

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            served.by_app.clear()
            replies = [await client.ask(head, request[len(head) :]) for _ in range(2)]

        assert [reply.status for reply in replies] == [200, 200]
        assert served.by_app == []

    async def test_have_bodies_of_any_length_under_the_same_head(
        self, served: Served, authorization: str
    ) -> None:
        bodies = [_one() + b" " * spaces for spaces in (0, 3, 0, 3, 1)]

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, body, authorization)) for body in bodies]

        assert {reply.body for reply in replies} == {replies[0].body}

    async def test_of_another_token_are_another_accounts(
        self, served: Served, neighbours: Neighbours, authorization: str
    ) -> None:
        other = f"Authorization: Bearer {neighbours.token(scope='usage:read')}"

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            await client.ask(post(V1, _one(), authorization))
            reply = await client.ask(post(V1, _one(), other))

        assert reply.status == 403

    async def test_stop_when_the_issuers_keys_change(
        self, served: Served, authorization: str
    ) -> None:
        async with connected(served.fast) as client:
            await _warm(client, authorization)
            await client.ask(post(V1, _one(), authorization))
            served.by_app.clear()
            served.app.app.state.verifier.forget()
            reply = await client.ask(post(V1, _one(), authorization))

        assert reply.status == 200
        assert served.by_app == [V1]

    async def test_are_answered_although_counting_them_fails(
        self,
        served: Served,
        authorization: str,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            monkeypatch.setattr(steps, "observe", fail)
            reply = await client.ask(post(V1, _one(), authorization))

        assert reply.status == 200
        await eventually(lambda: _number_charged(neighbours, account, 2))


async def test_a_connection_is_closed_when_idle_but_not_while_it_is_used(
    settings: InferenceSettings, tmp_path: Path, authorization: str
) -> None:
    settings = settings.model_copy(update={"journal_dir": tmp_path / "journal"})
    async with serving_both(settings, keep_alive_s=1) as served, connected(served.fast) as client:
        for _ in range(5):
            assert (await client.ask(post(V1, _one(), authorization))).status == 200
            await asyncio.sleep(0.4)

        rest = await asyncio.wait_for(client.reader.read(), 20)

    assert rest == b""


async def test_each_traced_request_takes_the_ordinary_path_and_no_other(
    settings: InferenceSettings,
    tmp_path: Path,
    authorization: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.3")
    settings = settings.model_copy(update={"journal_dir": tmp_path / "journal"})
    traced = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with collecting() as collector:
        tracing = Tracing("inference", endpoint=collector.url)
        async with (
            serving_both(settings, tracing=tracing) as served,
            connected(served.fast) as client,
        ):
            await _warm(client, authorization)
            served.by_app.clear()
            for number in range(60):
                more = (traced,) if number % 20 == 0 else ()
                await client.ask(post(V1, _one(), authorization, *more))
            by_app = len(served.by_app)
        tracing.close()
        spans = [span for span in collector.spans if span.name == "POST /v1/models/{model}:predict"]

    assert 3 < by_app < 40
    # The app also answers what had to wait; the request that warmed it up may be traced as well.
    assert by_app - 3 <= len(spans) <= by_app + 1


class TestPipelines:
    async def test_are_answered_in_order_and_billed_once_each(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        good, bad = post(V1, _one(), authorization), post(V1, b"{", authorization)
        sent = [good, good, bad, good, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", good, bad, good]

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            client.writer.write(b"".join(sent))
            replies = [await client.read() for _ in sent]

        assert [reply.status for reply in replies] == [200, 200, 422, 200, 200, 200, 422, 200]
        await eventually(lambda: _number_charged(neighbours, account, 6))

    async def test_of_equal_requests_are_each_answered(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, _one(), authorization)

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            for count in (2, 2, 1, 3):
                client.writer.write(request * count)
                replies = [await client.read() for _ in range(count)]
                assert [reply.status for reply in replies] == [200] * count

    async def test_cut_anywhere_are_answered_alike(
        self, served: Served, authorization: str
    ) -> None:
        stream = post(V1, _one(), authorization) * 3

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            for cut in range(1, len(stream), 97):
                client.writer.write(stream[:cut])
                await asyncio.sleep(0.002)
                client.writer.write(stream[cut:])
                replies = [await client.read() for _ in range(3)]
                assert [reply.status for reply in replies] == [200] * 3

    async def test_to_a_client_that_does_not_read_wait_without_being_lost(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request, count = post(V1, _one(), authorization), 4_000

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            sending = asyncio.create_task(_send_slowly(client, request, count))
            await asyncio.sleep(0.3)  # nothing is read meanwhile
            replies = [await client.read() for _ in range(count)]
            await sending

        assert {reply.status for reply in replies} == {200}
        ids = {reply.headers["x-usage-event"] for reply in replies}
        assert len(ids) == count
        await eventually(lambda: _number_charged(neighbours, account, count + 1))


class TestUnusualRequests:
    async def test_wait_for_permission_to_send_the_body(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, _one(), authorization, "Expect: 100-continue")
        head = request[: request.index(b"\r\n\r\n") + 4]

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            client.writer.write(head)
            interim = await client.read()
            reply = await client.ask(request[len(head) :])

        assert (interim.status, reply.status) == (100, 200)

    async def test_may_be_chunked(self, served: Served, authorization: str) -> None:
        body = _one()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        lines = [f"POST {V1} HTTP/1.1", "Host: x", authorization, "Transfer-Encoding: chunked"]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + chunks

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert [reply.status for reply in replies] == [200] * 3
        assert len({reply.body for reply in replies}) == 1

    async def test_with_head_have_no_body(self, served: Served, authorization: str) -> None:
        request = post(V1, b"", authorization).replace(b"POST", b"HEAD")

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            client.writer.write(request)
            reply = await client.read(has_body=False)
            after = await client.ask(post(V1, _one(), authorization))

        assert (reply.status, after.status) == (405, 200)

    async def test_with_a_slow_body_are_passed_to_the_app(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, _one(), authorization)

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            served.by_app.clear()
            reply = await client.ask(request[:-5], request[-5:], pause_s=0.3)
            after = await client.ask(request)

        assert (reply.status, after.status) == (200, 200)
        assert served.by_app == [V1]

    async def test_with_a_bad_token_are_refused_before_the_body_has_come(
        self, served: Served, authorization: str
    ) -> None:
        head = post(V1, _one(), "Authorization: Bearer abc")[: -len(_one())]

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            reply = await client.ask(head)

        assert reply.status == 401

    async def test_that_break_off_leave_nothing_behind(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, _one(), authorization)

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            client.writer.write(request[:-5])
            await asyncio.sleep(0.01)
        async with connected(served.fast) as client:
            reply = await client.ask(request)

        assert reply.status == 200
        await eventually(lambda: _number_charged(neighbours, account, 2))


class TestMoney:
    async def test_a_rate_limit_holds(
        self, served: Served, authorization: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 4}

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, _one(), authorization)) for _ in range(7)]

        assert [reply.status for reply in replies] == [200] * 4 + [429] * 3
        assert "retry-after" in replies[-1].headers

    async def test_credit_is_spent_to_the_end_and_no_further(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, _one(), authorization)) for _ in range(15)]

        assert [reply.status for reply in replies] == [200] * 10 + [402] * 5
        await eventually(lambda: _number_charged(neighbours, account, 10))

    async def test_a_repeat_with_its_key_is_billed_once(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, _one(), authorization, "Idempotency-Key: again")

        async with connected(served.fast) as client:
            await _warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert len({reply.headers["x-usage-event"] for reply in replies}) == 1
        await eventually(lambda: _number_charged(neighbours, account, 2))


class TestDiskDurability:
    @pytest.fixture
    async def synced(
        self, settings: InferenceSettings, tmp_path: Path, neighbours: Neighbours
    ) -> AsyncIterator[Served]:
        changes = {"journal_dir": tmp_path / "journal", "journal_sync": "disk"}
        async with serving_both(settings.model_copy(update=changes)) as served:
            yield served

    async def test_answers_follow_the_sync_in_order(
        self, synced: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, _one(), authorization)

        async with connected(synced.fast) as client:
            await _warm(client, authorization)
            synced.by_app.clear()
            single = [await client.ask(request) for _ in range(3)]
            passed_on = list(synced.by_app)
            client.writer.write(request * 4)
            burst = [await client.read() for _ in range(4)]

        assert [reply.status for reply in (*single, *burst)] == [200] * 7
        assert passed_on == []
        await eventually(lambda: _number_charged(neighbours, account, 8))

    async def test_a_failed_sync_answers_503_and_bills_nothing(
        self,
        synced: Served,
        authorization: str,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(fd: int) -> None:
            raise OSError(5, "Input/output error")

        async with connected(synced.fast) as client:
            await _warm(client, authorization)
            monkeypatch.setattr(os, "fsync", fail)
            reply = await client.ask(post(V1, _one(), authorization))

        assert reply.status == 503
        await eventually(lambda: _number_charged(neighbours, account, 1))


async def _send_slowly(client: Client, request: bytes, count: int) -> None:
    for _ in range(count):
        client.writer.write(request)
        await client.writer.drain()
        await asyncio.sleep(0)


async def _all_charged(neighbours: Neighbours, account: str, ids: set[str]) -> bool:
    return ids <= set(neighbours.charged_to(account))


async def _number_charged(neighbours: Neighbours, account: str, number: int) -> bool:
    charged = neighbours.charged_to(account)
    assert len(charged) <= number
    return len(charged) == number
