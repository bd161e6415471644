"""The server on a real socket: limits on bad clients, and how responses are sent."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from services.common.http import protocol as http_protocol
from services.common.http.protocol import MAX_HEAD_BYTES, Protocol


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo the body: as `text/plain`, in two pieces, or as a header."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    if scope["path"] == "/header":
        headers.append((b"x-body", body))
    if scope["path"] == "/pieces":
        headers.pop(0)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/pieces":
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(http_protocol, "HEAD_DEADLINE_S", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_app, http=Protocol, lifespan="off", log_config=None, ws="none")
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    running.should_exit = True
    await serving


async def _talk(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send pieces, then read until the server closes or responds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(100_000), 30)
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


async def test_a_silent_connection_is_closed(port: int) -> None:
    assert await _talk(port) == b""


async def test_slow_headers_are_cut_off_at_the_deadline(port: int) -> None:
    trickle = [b"GET / HTTP/1.1\r\n", *(b"X-%d: 1\r\n" % number for number in range(20))]

    assert await _talk(port, *trickle, pause_s=0.05) == b""


async def test_the_deadline_applies_to_every_request_of_a_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(0.8)  # being idle between requests is allowed
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    writer.write(b"GET / HTTP/1.1\r\nHo")

    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_an_endless_header_closes_the_connection(port: int) -> None:
    pieces = [b"GET / HTTP/1.1\r\nX: "] + [b"y" * 10_000] * 20

    answer = await _talk(port, *pieces, pause_s=0.001)

    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_an_endless_trailer_closes_the_connection(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "

    answer = await _talk(port, head, *[b"y" * 10_000] * 20, pause_s=0.001)

    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_blank_lines_after_a_response_do_not_keep_the_connection_open(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    writer.write(b"\r\n")

    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_too_many_headers_close_the_connection(port: int) -> None:
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))

    answer = await _talk(port, b"GET / HTTP/1.1\r\n" + lines + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_headers_just_under_the_limit_are_accepted(port: int) -> None:
    value = b"y" * (MAX_HEAD_BYTES - 1_000)

    answer = await _talk(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + value + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_long_body_is_not_mistaken_for_headers(port: int) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    answer = await _talk(port, head + body[:10], body[10:])

    assert answer.startswith(b"HTTP/1.1 200")


class TestResponse:
    async def test_a_response_is_complete_on_a_connection_that_stays_open(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in (b"first", b"second"):
            writer.write(_post(b"/", body))

            answer = await reader.read(100_000)

            head, _, content = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
            assert b"\r\ncontent-type: text/plain" in head
            assert content == body
        writer.close()

    async def test_requests_sent_at_once_are_answered_in_order(self, port: int) -> None:
        last = _post(b"/", b"second", b"Connection: close\r\n")

        answers = await _talk_to_the_end(port, _post(b"/", b"first") + last)

        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert answers.index(b"\r\n\r\nfirst") < answers.index(b"\r\n\r\nsecond")
        assert answers.count(b"connection: close") == 1

    async def test_a_streamed_response_is_sent_piece_by_piece(self, port: int) -> None:
        answer = await _talk_to_the_end(port, _post(b"/pieces", b"twice", b"Connection: close\r\n"))

        assert b"transfer-encoding: chunked" in answer
        assert answer.endswith(b"5\r\ntwice\r\n5\r\ntwice\r\n0\r\n\r\n")

    async def test_a_response_to_head_has_no_body(self, port: int) -> None:
        answer = await _talk_to_the_end(
            port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )

        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("value", [b"a\r\nset-cookie: b=c", b"a\nb", b"a\x00b"])
    async def test_a_header_cannot_inject_another(self, port: int, value: bytes) -> None:
        answer = await _talk_to_the_end(port, _post(b"/header", value))

        assert b"x-body" not in answer
        assert b"set-cookie" not in answer


def _post(path: bytes, body: bytes, headers: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path, headers, len(body)) + body


async def _talk_to_the_end(port: int, request: bytes) -> bytes:
    """Send a request, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer
