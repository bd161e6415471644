"""Predictions on the fast path: what it answers, and what it leaves to the app."""

import asyncio
from pathlib import Path

import pytest

from harness.otlp_collector import collecting
from harness.waiting import eventually_async as eventually
from services.common.telemetry.tracing import Tracing
from services.inference.api import steps
from services.inference.server import InferenceProtocol
from services.inference.settings import InferenceSettings
from tests.integration.inference.fast import (
    V1,
    Client,
    Served,
    all_charged,
    connected,
    number_charged,
    one_row,
    post,
    serving_both,
    warm,
)
from tests.integration.inference.neighbours import Neighbours


class TestWarmRequests:
    async def test_do_not_reach_the_app(self, served: Served, authorization: str) -> None:
        async with connected(served.fast) as client:
            await warm(client, authorization)
            served.by_app.clear()

            replies = [await client.ask(post(V1, one_row(), authorization)) for _ in range(5)]

        assert [reply.status for reply in replies] == [200] * 5
        assert served.by_app == []

    async def test_are_billed_once_each(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, one_row(), authorization)) for _ in range(20)]

        ids = {reply.headers["x-usage-event"] for reply in replies}
        await eventually(lambda: all_charged(neighbours, account, ids))
        assert len(ids) == 20
        assert sorted(neighbours.charged_to(account)) == sorted(ids)

    async def test_may_come_in_one_piece_or_two(
        self, served: Served, authorization: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(InferenceProtocol, "hold_s", 30.0)
        request = post(V1, one_row(), authorization)
        head = request[: request.index(b"\r\n\r\n") + 4]

        async with connected(served.fast) as client:
            await warm(client, authorization)
            served.by_app.clear()
            replies = [await client.ask(head, request[len(head) :]) for _ in range(2)]

        assert [reply.status for reply in replies] == [200, 200]
        assert served.by_app == []

    async def test_have_bodies_of_any_length_under_the_same_head(
        self, served: Served, authorization: str
    ) -> None:
        bodies = [one_row() + b" " * spaces for spaces in (0, 3, 0, 3, 1)]

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, body, authorization)) for body in bodies]

        assert {reply.body for reply in replies} == {replies[0].body}

    async def test_of_another_token_are_another_accounts(
        self, served: Served, neighbours: Neighbours, authorization: str
    ) -> None:
        other = f"Authorization: Bearer {neighbours.token(scope='usage:read')}"

        async with connected(served.fast) as client:
            await warm(client, authorization)
            await client.ask(post(V1, one_row(), authorization))
            reply = await client.ask(post(V1, one_row(), other))

        assert reply.status == 403

    async def test_stop_when_the_issuers_keys_change(
        self, served: Served, authorization: str
    ) -> None:
        async with connected(served.fast) as client:
            await warm(client, authorization)
            await client.ask(post(V1, one_row(), authorization))
            served.by_app.clear()
            served.app.app.state.verifier.forget()
            reply = await client.ask(post(V1, one_row(), authorization))

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
            await warm(client, authorization)
            monkeypatch.setattr(steps, "observe", fail)
            reply = await client.ask(post(V1, one_row(), authorization))

        assert reply.status == 200
        await eventually(lambda: number_charged(neighbours, account, 2))


@pytest.mark.costly
async def test_a_connection_is_closed_when_idle_but_not_while_it_is_used(
    settings: InferenceSettings, tmp_path: Path, authorization: str
) -> None:
    settings = settings.model_copy(update={"journal_dir": tmp_path / "journal"})
    async with serving_both(settings, keep_alive_s=3) as served, connected(served.fast) as client:
        for _ in range(4):
            assert (await client.ask(post(V1, one_row(), authorization))).status == 200
            await asyncio.sleep(1)

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
            await warm(client, authorization)
            served.by_app.clear()
            for number in range(60):
                more = (traced,) if number % 20 == 0 else ()
                await client.ask(post(V1, one_row(), authorization, *more))
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
        good, bad = post(V1, one_row(), authorization), post(V1, b"{", authorization)
        sent = [good, good, bad, good, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", good, bad, good]

        async with connected(served.fast) as client:
            await warm(client, authorization)
            client.writer.write(b"".join(sent))
            replies = [await client.read() for _ in sent]

        assert [reply.status for reply in replies] == [200, 200, 422, 200, 200, 200, 422, 200]
        await eventually(lambda: number_charged(neighbours, account, 6))

    async def test_of_equal_requests_are_each_answered(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, one_row(), authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            for count in (2, 2, 1, 3):
                client.writer.write(request * count)
                replies = [await client.read() for _ in range(count)]
                assert [reply.status for reply in replies] == [200] * count

    async def test_cut_anywhere_are_answered_alike(
        self, served: Served, authorization: str
    ) -> None:
        stream = post(V1, one_row(), authorization) * 3

        async with connected(served.fast) as client:
            await warm(client, authorization)
            for cut in range(1, len(stream), 97):
                client.writer.write(stream[:cut])
                await asyncio.sleep(0.002)
                client.writer.write(stream[cut:])
                replies = [await client.read() for _ in range(3)]
                assert [reply.status for reply in replies] == [200] * 3

    @pytest.mark.costly
    async def test_to_a_client_that_does_not_read_wait_without_being_lost(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request, count = post(V1, one_row(), authorization), 4_000

        async with connected(served.fast) as client:
            await warm(client, authorization)
            sending = asyncio.create_task(_send_slowly(client, request, count))
            await asyncio.sleep(0.3)  # nothing is read meanwhile
            replies = [await client.read() for _ in range(count)]
            await sending

        assert {reply.status for reply in replies} == {200}
        ids = {reply.headers["x-usage-event"] for reply in replies}
        assert len(ids) == count
        await eventually(lambda: number_charged(neighbours, account, count + 1))


class TestUnusualRequests:
    async def test_wait_for_permission_to_send_the_body(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, one_row(), authorization, "Expect: 100-continue")
        head = request[: request.index(b"\r\n\r\n") + 4]

        async with connected(served.fast) as client:
            await warm(client, authorization)
            client.writer.write(head)
            interim = await client.read()
            reply = await client.ask(request[len(head) :])

        assert (interim.status, reply.status) == (100, 200)

    async def test_may_be_chunked(self, served: Served, authorization: str) -> None:
        body = one_row()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        lines = [f"POST {V1} HTTP/1.1", "Host: x", authorization, "Transfer-Encoding: chunked"]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + chunks

        async with connected(served.fast) as client:
            await warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert [reply.status for reply in replies] == [200] * 3
        assert len({reply.body for reply in replies}) == 1

    async def test_with_head_have_no_body(self, served: Served, authorization: str) -> None:
        request = post(V1, b"", authorization).replace(b"POST", b"HEAD")

        async with connected(served.fast) as client:
            await warm(client, authorization)
            client.writer.write(request)
            reply = await client.read(has_body=False)
            after = await client.ask(post(V1, one_row(), authorization))

        assert (reply.status, after.status) == (405, 200)

    async def test_with_a_slow_body_are_passed_to_the_app(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, one_row(), authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            served.by_app.clear()
            reply = await client.ask(request[:-5], request[-5:], pause_s=0.3)
            after = await client.ask(request)

        assert (reply.status, after.status) == (200, 200)
        assert served.by_app == [V1]

    async def test_with_a_bad_token_are_refused_before_the_body_has_come(
        self, served: Served, authorization: str
    ) -> None:
        head = post(V1, one_row(), "Authorization: Bearer abc")[: -len(one_row())]

        async with connected(served.fast) as client:
            await warm(client, authorization)
            reply = await client.ask(head)

        assert reply.status == 401

    async def test_that_break_off_leave_nothing_behind(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, one_row(), authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            client.writer.write(request[:-5])
            await asyncio.sleep(0.01)
        async with connected(served.fast) as client:
            reply = await client.ask(request)

        assert reply.status == 200
        await eventually(lambda: number_charged(neighbours, account, 2))


async def test_a_request_that_is_held_back_is_answered_although_the_server_stops(
    settings: InferenceSettings, tmp_path: Path, authorization: str
) -> None:
    settings = settings.model_copy(update={"journal_dir": tmp_path / "journal"})
    request = post(V1, one_row(), authorization)
    async with serving_both(settings) as served, connected(served.fast) as client:
        await warm(client, authorization)

        client.writer.write(request[:-5])
        await asyncio.sleep(0.01)
        for connection in list(served.server.server_state.connections):
            connection.shutdown()
        reply = await client.ask(request[-5:])

    assert (reply.status, reply.headers["connection"]) == (200, "close")


async def _send_slowly(client: Client, request: bytes, count: int) -> None:
    for _ in range(count):
        client.writer.write(request)
        await client.writer.drain()
        await asyncio.sleep(0)
