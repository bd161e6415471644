"""Predictions on the fast path when something is unusual or goes wrong, one thing at a time."""

import asyncio
import errno
import os
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harness.waiting import eventually_async as eventually
from services.inference.metering.journal import journal
from services.inference.settings import InferenceSettings
from tests.integration.inference.fast import (
    V1,
    V2,
    Reply,
    Served,
    connected,
    number_charged,
    one_row,
    post,
    serving_both,
    warm,
)
from tests.integration.inference.neighbours import Neighbours

BODY = one_row()


@pytest.fixture(scope="module")
async def small(
    settings: InferenceSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    changes = {"journal_dir": tmp_path_factory.mktemp("journal"), "max_body_bytes": 2_000}
    async with serving_both(settings.model_copy(update=changes)) as served:
        yield served


@pytest.fixture
def served(small: Served, neighbours: Neighbours) -> Served:
    """Return an app that takes small bodies only, with auth and billing in their initial state."""
    small.by_app.clear()
    return small


class Syncing:
    """Lets a test decide when syncs to disk finish."""

    def __init__(self) -> None:
        self._may_finish = threading.Event()
        self._may_finish.set()
        self._held = 0
        self._fsync = os.fsync

    def hold(self) -> None:
        self._held = 0
        self._may_finish.clear()

    async def is_held(self) -> bool:
        return self._held > 0

    def go_on(self) -> None:
        self._may_finish.set()

    def fsync(self, fd: int) -> None:
        self._held += 1
        assert self._may_finish.wait(20)
        self._fsync(fd)


@pytest.fixture
def syncing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncing]:
    syncing = Syncing()
    monkeypatch.setattr(os, "fsync", syncing.fsync)
    yield syncing
    syncing.go_on()


class TestRepeatedHeads:
    async def test_followed_by_a_blank_line_do_not_shift_the_body(
        self, served: Served, authorization: str
    ) -> None:
        rows = struct.pack("<6f", 9.0, 9.0, 9.0, -9.0, -9.0, -9.0)
        length = "Inference-Header-Content-Length: 0"
        request = post(V2, rows, authorization, length) + b"\r\n"

        async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
            await warm(fast, authorization)
            replies = [await fast.ask(request) for _ in range(3)]
            expected = await ordinary.ask(request)

        assert [_outputs(reply) for reply in replies] == [_outputs(expected)] * 3

    async def test_followed_by_a_blank_line_keep_the_event_of_their_key(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, b"  " + BODY, authorization, "Idempotency-Key: k") + b"\r\n"

        async with connected(served.fast) as client:
            await warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert len({reply.headers["x-usage-event"] for reply in replies}) == 1
        await eventually(lambda: number_charged(neighbours, account, 2))

    @pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\r\n" * 3])
    async def test_after_blank_lines_are_answered_alike(
        self, served: Served, authorization: str, before: bytes
    ) -> None:
        request = post(V1, BODY, authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            sent = [before + request, before + request, before, request, request, before]
            client.writer.write(request)
            for piece in sent:
                await asyncio.sleep(0.005)
                client.writer.write(piece)
            replies = [await client.read() for _ in range(5)]

        assert {reply.body for reply in replies} == {replies[0].body}

    async def test_with_an_invalid_request_id_get_a_new_one_each(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, BODY, authorization, "X-Request-ID: a b")

        async with connected(served.fast) as client:
            await warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert len({reply.headers["x-request-id"] for reply in replies}) == 3

    async def test_inside_a_body_are_part_of_the_body(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, BODY, authorization)
        outer = post("/v1/models/nothing:predict", request * 2, authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            await client.ask(request)
            for piece in (outer[: -2 * len(request)], request, request):
                client.writer.write(piece)
                await asyncio.sleep(0.01)
            refused = await client.read()
            after = await client.ask(request)

        assert (refused.status, after.status) == (404, 200)
        await eventually(lambda: number_charged(neighbours, account, 3))

    async def test_of_an_expired_token_are_refused(
        self, served: Served, authorization: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = post(V1, BODY, authorization)
        verifier = served.app.app.state.verifier

        async with connected(served.fast) as client:
            await warm(client, authorization)
            await client.ask(request)
            real = verifier._clock
            monkeypatch.setattr(verifier, "_clock", lambda: real() + 100_000)
            reply = await client.ask(request)

        assert reply.status == 401


class TestLimits:
    async def test_hold_for_bodies_smaller_than_those_that_are_parsed_whole(
        self, served: Served, authorization: str
    ) -> None:
        request = post(V1, BODY + b" " * 2_000, authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            reply = await client.ask(request)

        assert reply.status == 413

    async def test_count_a_request_once_although_its_event_cannot_be_written(
        self,
        served: Served,
        authorization: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 2}

        async with connected(served.fast) as client:
            await warm(client, authorization)
            monkeypatch.setattr(journal, "REFUSE_AFTER_FAILURE_S", 0.0)
            monkeypatch.setattr(os, "pwrite", _find_no_space)
            reply = await client.ask(post(V1, BODY, authorization))

        assert reply.status == 503


class TestOneConnection:
    @pytest.mark.costly
    async def test_is_not_idle_while_a_request_behind_an_answered_one_is_in_progress(
        self, settings: InferenceSettings, tmp_path: Path, authorization: str
    ) -> None:
        settings = settings.model_copy(update={"journal_dir": tmp_path / "journal"})
        request = post(V1, BODY, authorization)

        async with (
            serving_both(settings, keep_alive_s=1) as served,
            connected(served.fast) as client,
        ):
            await warm(client, authorization)
            first = await client.ask(request + request[:-5])
            second = await client.ask(b"", request[-5:], pause_s=2.5)

        assert (first.status, second.status) == (200, 200)

    async def test_with_a_full_disk_is_refused_whatever_was_not_written(
        self,
        served: Served,
        authorization: str,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        request, real, written = post(V1, BODY, authorization), os.pwrite, 0

        def write(fd: int, data: bytes, offset: int) -> int:
            nonlocal written
            written += 1
            if written > 6:
                _find_no_space()
            return real(fd, data if written < 6 else data[:50], offset)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            monkeypatch.setattr(journal, "REFUSE_AFTER_FAILURE_S", 0.0)
            monkeypatch.setattr(os, "pwrite", write)
            client.writer.write(request * 12)
            replies = [await client.read() for _ in range(12)]
            monkeypatch.undo()

        assert [reply.status for reply in replies] == [200] * 5 + [503] * 7
        await eventually(lambda: number_charged(neighbours, account, 6))

    async def test_is_closed_after_a_request_that_was_incomplete_when_the_service_stopped(
        self, served: Served, authorization: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = post(V1, BODY, authorization)

        async with connected(served.fast) as client:
            await warm(client, authorization)
            served.by_app.clear()
            client.writer.write(request[:-5])
            await asyncio.sleep(0.01)
            monkeypatch.setitem(served.server.lifespan.state, "stopping", True)
            reply = await client.ask(request[-5:])

        assert reply.status == 200
        assert served.by_app == [V1]

    @pytest.mark.parametrize("cut", [0, 5])
    async def test_may_be_half_closed_right_after_a_request(
        self, served: Served, authorization: str, cut: int
    ) -> None:
        request = post(V1, BODY, authorization)
        at = len(request) - cut

        async with connected(served.fast) as client:
            await warm(client, authorization)
            client.writer.write(request[:at])
            await asyncio.sleep(0.01)
            client.writer.write(request[at:])
            client.writer.write_eof()
            reply, rest = await client.read(), await client.reader.read()

        assert (reply.status, rest) == (200, b"")


async def test_the_time_of_a_request_runs_while_its_body_is_on_the_way(
    served: Served, authorization: str
) -> None:
    request = post(V1, BODY, authorization, "X-Request-Timeout: 0.02")

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await warm(fast, authorization)
        late = [
            await client.ask(request[:-5], request[-5:], pause_s=0.04)
            for client in (fast, ordinary)
        ]

    assert [reply.status for reply in late] == [503, 503]


@pytest.mark.costly
class TestDisk:
    async def test_failures_refuse_all_connections_that_wait_and_bill_none(
        self,
        synced: Served,
        authorization: str,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 10}

        def fail(fd: int) -> None:
            raise OSError(5, "Input/output error")

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(synced.fast)) for _ in range(9)]
            await warm(clients[0], authorization)
            monkeypatch.setattr(os, "fsync", fail)
            for client in clients:
                client.writer.write(post(V1, BODY, authorization))
            replies = [await client.read() for client in clients]

        assert [reply.status for reply in replies] == [503] * 9
        await eventually(lambda: number_charged(neighbours, account, 1))

    async def test_answers_close_a_connection_as_the_ordinary_path_does(
        self, synced: Served, authorization: str, syncing: Syncing
    ) -> None:
        request, replies = post(V1, BODY, authorization), []

        for port in (synced.fast, synced.ordinary):
            async with connected(port) as client:
                await warm(client, authorization)
                syncing.hold()
                client.writer.write(request)
                await eventually(syncing.is_held)
                client.writer.write_eof()
                await asyncio.sleep(0.02)
                syncing.go_on()
                replies.append((await client.read()).lasting)
                assert await client.reader.read() == b""

        assert replies[0] == replies[1]

    async def test_answers_to_clients_that_left_do_not_keep_others_waiting(
        self, synced: Served, authorization: str, account: str, syncing: Syncing
    ) -> None:
        request = post(V1, BODY, authorization)

        async with connected(synced.fast) as client:
            await warm(client, authorization)
            syncing.hold()
            async with connected(synced.fast) as leaving:
                leaving.writer.write(request * 3)
                await eventually(syncing.is_held)
            client.writer.write(request)
            await asyncio.sleep(0.02)
            syncing.go_on()
            replies = [await client.read(), await client.ask(request)]

        assert [reply.status for reply in replies] == [200, 200]


def _find_no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def _outputs(reply: Reply) -> bytes:
    return reply.body[int(reply.headers["inference-header-content-length"]) :]
