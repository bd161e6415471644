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
    _fed_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._fed_bytes += len(data)
        super().data_received(data)
        # The parser hands over whole headers only: what it still holds back counts as well.
        held_back = self._fed_bytes if self._in_headers else 0
        if max(self._header_bytes, held_back) > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._header_bytes = self._fed_bytes = 0
        self._in_headers = True
        if self._deadline is None:
            self._arm()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
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
