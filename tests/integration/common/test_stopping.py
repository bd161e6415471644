"""Graceful shutdown as callers see it, on real sockets."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
import uvicorn
from fastapi import FastAPI, Request
from structlog.testing import capture_logs

from harness.programs import ROOT
from services.common import shutdown as stopping
from services.common.http.app import service_app
from services.common.http.protocol import Protocol
from services.common.http.routing import new_router
from services.common.shutdown import StoppingServer
from tests.integration.common.sample import ADDRESSES

PATIENCE_S = 0.6

router = new_router(tag="samples")


@router.get("/quick")
async def answer() -> str:
    return "quick"


@router.get("/slow")
async def answer_late(request: Request) -> str:
    request.app.state.begun.set()
    await request.app.state.may_answer.wait()
    return "slow"


@router.get("/never")
async def never_answer(request: Request) -> None:
    request.app.state.begun.set()
    await asyncio.Event().wait()


@asynccontextmanager
async def empty_lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.checks = {}
    app.state.begun, app.state.may_answer = asyncio.Event(), asyncio.Event()
    yield


class Running:
    """A server that runs until it is stopped."""

    def __init__(self) -> None:
        app = service_app(
            title="Sample",
            description="",
            token_url="/",
            addresses=ADDRESSES,
            lifespan=empty_lifespan,
            max_body_bytes=1000,
        )
        app.include_router(router)
        self.state = app.state
        config = uvicorn.Config(
            app,
            http=Protocol,
            log_config=None,
            ws="none",
            timeout_graceful_shutdown=PATIENCE_S,  # type: ignore[arg-type]  # fractions are taken
        )
        self._server = StoppingServer(config)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def started(self) -> "Running":
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def stop(self) -> None:
        """Signal the server to stop; return when it has started to."""
        self._server.should_exit = True
        while not self._server.lifespan.state.get("stopping"):
            await asyncio.sleep(0.01)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, path: str) -> None:
        self._writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())

    async def read(self) -> tuple[int, bool, bytes]:
        """Return the status, whether the response closes the connection, and the body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        return int(head.split()[1]), b"connection: close" in head, body

    async def is_closed(self) -> bool:
        return await asyncio.wait_for(self._reader.read(), 30) == b""

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    running = await Running().started()
    yield running
    await running.stop()
    await asyncio.wait_for(running.serving, 30)


@asynccontextmanager
async def connected(server: Running) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        yield client
    finally:
        await client.close()


class TestStopping:
    async def test_an_idle_connection_gets_one_more_response_with_connection_close(
        self, server: Running
    ) -> None:
        async with connected(server) as client:
            client.send("/quick")
            before = await client.read()
            await server.stop()
            client.send("/quick")
            after = await client.read()

            assert before == (200, False, b'"quick"')
            assert after == (200, True, b'"quick"')
            assert await client.is_closed()

    async def test_a_running_request_is_answered_and_its_connection_closed(
        self, server: Running
    ) -> None:
        async with connected(server) as client:
            client.send("/slow")
            await server.state.begun.wait()
            await server.stop()
            server.state.may_answer.set()

            assert await client.read() == (200, True, b'"slow"')
            assert await client.is_closed()

    async def test_a_new_connection_is_answered_until_the_last_call_ends(
        self, server: Running
    ) -> None:
        async with connected(server):
            await server.stop()
            async with connected(server) as late:
                late.send("/quick")
                assert await late.read() == (200, True, b'"quick"')

        await asyncio.wait_for(server.serving, 30)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)

    async def test_it_is_no_longer_ready(self, server: Running) -> None:
        async with connected(server) as client:
            await server.stop()
            client.send("/readyz")
            status, _, body = await client.read()

        assert status == 503
        assert orjson.loads(body)["failing"] == {"stopping": "The service is stopping."}

    async def test_an_idle_connection_is_closed(
        self, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stopping, "LAST_CALL_S", 0.2)
        async with connected(server) as client:
            await server.stop()

            assert await client.is_closed()

    async def test_a_hanging_request_is_aborted_with_503_and_logged(
        self, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stopping, "LAST_CALL_S", 1.0)
        async with connected(server) as hanging, connected(server) as other:
            hanging.send("/never")
            await server.state.begun.wait()
            await server.stop()
            other.send("/quick")
            unharmed = await other.read()
            with capture_logs() as logged:
                status, is_last, body = await hanging.read()

        assert unharmed == (200, True, b'"quick"')
        assert (status, is_last) == (503, True)
        assert orjson.loads(body)["type"] == "urn:tollgate:problem:unavailable"
        [cut_short] = [line for line in logged if line["event"] == "request_aborted"]
        assert (cut_short["path"], cut_short["log_level"]) == ("/never", "error")


def test_a_stuck_thread_does_not_keep_the_process_alive() -> None:
    script = (
        "import threading, time\n"
        "from services.common.shutdown import end_process\n"
        "threading.Thread(target=time.sleep, args=(0.1,)).start()\n"
        "end_process()\n"
        "threading.Thread(target=time.sleep, args=(60,), name='sleeper').start()\n"
        "end_process()\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    assert result.returncode == 1
    assert "threads_stuck" in result.stdout + result.stderr
    assert "sleeper" in result.stdout + result.stderr
