"""Uvicorn's httptools protocol with bounds on what a client may cost, and answers in one piece.

httptools itself has no limit on headers, and uvicorn no deadline for receiving them. Uvicorn gives
the head of an answer and its body to the kernel one after the other: two packets, and two wake-ups
of whoever waits for them, where one does.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

MAX_HEADER_BYTES = 64 * 1024
HEADERS_DEADLINE_S = 30.0

_CONTROLS = bytes({*range(32), 127} - {ord("\t")})


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection whose headers are larger than 64 KiB or not complete within 30 s."""

    _deadline: asyncio.TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0
    _unparsed_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        # The parser hands over whole headers (and trailers) only: what it holds back counts too.
        if max(self._header_bytes, self._unparsed_bytes) > MAX_HEADER_BYTES:
            self.transport.close()
        # Headers that came whole, as nearly all do, need no timer. Any byte ends uvicorn's
        # keep-alive timer; blank lines, or the rest of a body that was answered early, begin no
        # request that would set another.
        if self._deadline is None and (
            self._in_headers or self.cycle is None or self.cycle.response_complete
        ):
            self._arm()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = self._unparsed_bytes = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_message_complete()

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._unparsed_bytes = 0
        self._disarm()
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too large")  # uvicorn answers 400 and closes
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Not set on the cycle, which would then refer to itself and be left to the collector.
        def answering_whole(scope: Any, receive: Any, send: Any) -> Any:
            return app(scope, receive, _Answer(cycle).send)

        super()._start_asgi_task(cycle, answering_whole)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_DEADLINE_S, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Answer:
    """Sends an answer's head and its body together, if the body is whole.

    All else is left to uvicorn, message by message.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._start: Any = None

    async def send(self, message: Any) -> None:
        """The ASGI `send` of one request."""
        cycle, start, self._start = self._cycle, self._start, None
        if message["type"] == "http.response.start":
            self._start = message
            return
        if start is not None:
            whole = _joined(cycle, start, message)
            if whole is None:
                await cycle.send(start)
            else:
                cycle.response_started = True
                cycle.waiting_for_100_continue = False
                cycle.chunked_encoding = False
                cycle.expected_content_length = len(whole)
                message = {"type": "http.response.body", "body": whole}
        await cycle.send(message)


def _joined(cycle: RequestResponseCycle, start: Any, message: Any) -> bytes | None:
    """The bytes of an answer that is whole and of the length it states; None for any other."""
    if message.get("more_body") or cycle.scope["method"] == "HEAD" or not cycle.keep_alive:
        return None
    headers = [*cycle.default_headers, *start["headers"]]
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = STATUS_LINE[start["status"]] + b"".join(lines)
    # No header may smuggle in another: the line ends are the only control characters.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 1):
        return None
    body: bytes = message.get("body", b"")
    if b"\r\ncontent-length: %d\r\n" % len(body) not in head or b"\r\nconnection: " in head:
        return None
    return head + b"\r\n" + body
