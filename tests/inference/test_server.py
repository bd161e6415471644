"""What a silent, slow or endless client may cost a server on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from services.inference import server
from services.inference.server import MAX_HEADER_BYTES, BoundedProtocol


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(server, "HEADERS_DEADLINE_S", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_echo, http=BoundedProtocol, lifespan="off", log_config=None, ws="none")
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    running.should_exit = True
    await serving


async def _talk(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send pieces, then read until the server closes or answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(100_000), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_an_ordinary_request_is_answered(port: int) -> None:
    body = b"x" * 300_000

    answer = await _talk(
        port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_silent_connection_is_ended(port: int) -> None:
    assert await _talk(port) == b""


async def test_trickled_headers_are_ended_at_the_deadline(port: int) -> None:
    trickle = [b"GET / HTTP/1.1\r\n", *(b"X-%d: 1\r\n" % number for number in range(20))]

    assert await _talk(port, *trickle, pause_s=0.05) == b""


async def test_the_deadline_counts_for_every_request_of_a_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(0.8)  # idle between requests is not slow
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    writer.write(b"GET / HTTP/1.1\r\nHo")

    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_one_endless_header_ends_the_connection(port: int) -> None:
    pieces = [b"GET / HTTP/1.1\r\nX: "] + [b"y" * 10_000] * 20

    assert await _talk(port, *pieces, pause_s=0.001) == b""


async def test_an_endless_trailer_ends_the_connection(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "

    assert await _talk(port, head, *[b"y" * 10_000] * 20, pause_s=0.001) == b""


async def test_blank_lines_after_an_answer_do_not_keep_the_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    writer.write(b"\r\n")

    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_many_headers_end_the_connection(port: int) -> None:
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))

    answer = await _talk(port, b"GET / HTTP/1.1\r\n" + lines + b"\r\n")

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


async def test_headers_of_just_under_the_limit_are_read(port: int) -> None:
    value = b"y" * (MAX_HEADER_BYTES - 1_000)

    answer = await _talk(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + value + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_long_body_is_not_mistaken_for_headers(port: int) -> None:
    body = b"x" * (4 * MAX_HEADER_BYTES)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    answer = await _talk(port, head + body[:10], body[10:])

    assert answer.startswith(b"HTTP/1.1 200")
