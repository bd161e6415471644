"""Uvicorn's httptools protocol with bounds on what a silent or endless client may cost.

httptools itself has no limit on headers, and uvicorn no deadline for receiving them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
HEADERS_DEADLINE_S = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection whose headers are larger than 64 KiB or not complete within 30 s."""

    _deadline: asyncio.TimerHandle | None = None
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
        # Any byte ends uvicorn's keep-alive timer; blank lines, or the rest of a body that was
        # answered early, begin no request that would set another.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()

    def on_message_begin(self) -> None:
        self._header_bytes = self._unparsed_bytes = 0
        if self._deadline is None:
            self._arm()
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
        self._unparsed_bytes = 0
        self._disarm()
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too large")  # uvicorn answers 400 and closes
        super().on_headers_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_DEADLINE_S, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
