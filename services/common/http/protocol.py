"""The HTTP/1.1 server protocol of every service: a strict and bounded version of uvicorn's.

llhttp, the parser in httptools, rejects bare line feeds, folded headers, and Content-Length
together with Transfer-Encoding. This module adds what llhttp leaves to its user:

- `Upgrade` is ignored and the request's body is read (RFC 9110 §7.8).
- A request has exactly one `Host`, no transfer coding except `chunked`, version 1.0 or 1.1, and
  its trailers are dropped.
- Only configured hosts are served, if any are, and probes on every host.
- The size of a head, the number of its headers, the time for a head and a body, and the number of
  pipelined requests are limited.
- An early response reaches a client that is still sending: the rest is read and discarded for a
  while before the connection is closed (RFC 9112 §9.6).
"""

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import httptools
import orjson
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from services.common.errors import PROBLEM_JSON, from_http
from services.common.http.disconnects import mark_closed
from services.common.http.responses import ResponseSender

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 100
HEAD_DEADLINE_S = 30.0
BODY_DEADLINE_S = 60.0

DRAIN_BYTES = 256 * 1024
"""The largest unread body to discard in order to keep the connection."""
LINGER_BYTES = 32 * 1024 * 1024
LINGER_S = 10.0
"""How much is read and discarded after the last response, and for how long."""

_FRAMING = frozenset({b"host", b"expect", b"content-length", b"transfer-encoding", b"te"})
_WITHOUT_VERSION = re.compile(rb"(?:\A|\n)[A-Z]+ /[^ \r\n]*\r?\n\Z")
"""An HTTP/0.9 request, which is complete after this line."""
_PROBES = re.compile(rb"/(?:healthz|readyz|metrics)(?:\?.*)?")
"""What a cluster requests by the address of a pod."""
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=%\[\]:-]*")


class Protocol(HttpToolsProtocol):
    """One connection; passed to uvicorn as its `http` option."""

    _deadline: asyncio.TimerHandle | None = None
    _receiving = False  # a request, including its body
    _in_head = False
    _upgrading = False
    _discarding = False  # drop whatever the client still sends
    _refusal = (400, "Invalid HTTP request received.")
    _head_bytes = 0
    _unparsed_bytes = 0
    _body_bytes = 0
    _hosts = 0
    trusted_hosts: re.Pattern[bytes] | None = None
    """The hosts that are served; None for all."""

    @classmethod
    def for_hosts(cls, names: Sequence[str]) -> "type[Protocol]":
        """Return a protocol that only serves these hosts, on any port.

        Args:
            names: in lower case; `*.example.com` includes all subdomains; empty for any host.
        """
        if not names:
            return cls
        patterns = [re.escape(name).replace(r"\*\.", r"(?:[^.:]+\.)+") for name in names]
        allowed = re.compile(f"(?:{'|'.join(patterns)})(?::[0-9]*)?".encode(), re.IGNORECASE)
        return type(cls.__name__, (cls,), {"trusted_hosts": allowed})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._orderly = _OrderlyTransport(transport, self)
        super().connection_made(self._orderly)  # type: ignore[arg-type]
        self._arm(HEAD_DEADLINE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._discarding = True
        if self.cycle is not None:
            mark_closed(self.cycle.scope)
        super().connection_lost(exc)
        self._orderly.detach()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the client's complete requests before closing; return whether there are any."""
        cycle = self.cycle
        if self._discarding or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        self._disarm()
        cycle.keep_alive = False
        mark_closed(cycle.scope)
        return True

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._discarding:
            self._drop(len(data))
            return
        self._unparsed_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                self._parse_without_upgrades(memoryview(data)[stopped.args[0] :])
        except httptools.HttpParserError:
            self.give_up(*self._refusal)
            return
        # The parser only delivers whole headers (and trailers), so count what it buffers, too.
        if max(self._head_bytes, self._unparsed_bytes) > MAX_HEAD_BYTES:
            self.give_up(431, "The request's headers are too large.")
        elif self._in_head and not self.headers and _WITHOUT_VERSION.search(data):
            self.give_up(505, "HTTP/1.1 is required.")
        # A request that arrived whole, as nearly all do, needs no timer. Any byte cancels uvicorn's
        # keep-alive timer, and blank lines do not start a request that would set a new one.
        elif self._deadline is None and (
            self._receiving or (self.timeout_keep_alive_task is None and not self.is_answering())
        ):
            in_body = self._receiving and not self._in_head
            self._arm(BODY_DEADLINE_S if in_body else HEAD_DEADLINE_S)

    def _parse_without_upgrades(self, rest: memoryview) -> None:
        """Continue after the parser stopped at the end of a head with `Upgrade`.

        A new parser reads the same head without its `Upgrade`, then the rest.
        """
        while True:
            head = self._head_without_upgrade()
            self._upgrading = False
            self.parser = httptools.HttpRequestParser(self)
            # Like uvicorn, tolerate data after `Connection: close`.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as stopped:
                rest = rest[stopped.args[0] :]

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        start = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        return b"".join([start, *lines, b"\r\n"])

    # -- the parser's callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._receiving = self._in_head = True
        self._head_bytes = self._unparsed_bytes = 0
        self._hosts = self._body_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if not self._in_head:
            return  # a trailer, which must not be treated as a header
        name = name.lower()
        self.headers.append((name, value))
        if name in _FRAMING:
            self._check_framing(name, value)

    def _check_framing(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            if not _HOST.fullmatch(value):
                self._refuse(400, "The Host header is malformed.")
            if self.trusted_hosts is not None and not self.trusted_hosts.fullmatch(value):
                self._refuse_host()
        elif name == b"content-length":
            self._body_bytes = int(value)
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"te":
            if b"chunked" in value.lower():  # clients must not list it (RFC 9110 §10.1.4)
                self._refuse(400, "The TE header is malformed.")
        elif self.parser.get_http_version() == "1.0":
            self._refuse(400, "HTTP/1.0 does not support Transfer-Encoding.")
        elif value.lower() != b"chunked":
            self._refuse(501, "Transfer-Encoding must be chunked.")
        else:
            self._body_bytes = DRAIN_BYTES + 1  # the size is unknown

    def _refuse_host(self) -> None:
        if not _PROBES.fullmatch(self.url):
            self._refuse(421, "This host is not served here.")

    def on_headers_complete(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "The request's headers are too large.")
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431, "The request has too many headers.")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "HTTP/1.1 is required.")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            self._refuse(400, "Exactly one Host header is required.")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(400, "Too many pipelined requests.")  # earlier ones are still answered
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refuse(501, "This server is not a proxy.")
            self._upgrading = True
            return
        self._in_head = False
        self._unparsed_bytes = 0
        self._disarm()
        self.start_request()

    def start_request(self) -> None:
        """Pass a request with a valid head to the app; its body may still be arriving."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self.add_body(body)

    def add_body(self, body: bytes) -> None:
        """Pass a part of the body to the app."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._unparsed_bytes = 0
        self._receiving = False
        self._disarm()
        self.end_request()

    def end_request(self) -> None:
        """Report to the app that the request is complete."""
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _refuse(self, status: int, message: str) -> NoReturn:
        self._refusal = (status, message)
        raise ValueError(message)  # makes the parser stop with its own error

    # -- closing ---------------------------------------------------------------------------------

    def give_up(self, status: int, message: str) -> None:
        """Reject a malformed request and everything after it.

        Earlier requests are answered first. In that case the connection closes without an error
        response, because the client could mistake it for the response to an earlier request.
        """
        self._discarding = True
        self._disarm()
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self._write_refusal(status, message)
        elif cycle.response_complete:
            self.transport.close()
        elif not cycle.more_body:
            cycle.keep_alive = False
        elif self.pipeline or cycle.response_started:
            self._transport.abort()
        else:
            self._write_refusal(status, message)
            cycle.disconnected = True
            cycle.message_event.set()

    def _write_refusal(self, status: int, message: str) -> None:
        request_id = os.urandom(16).hex()
        problem = from_http(HTTPException(status, message)).body(path="", request_id=request_id)
        content = orjson.dumps(problem)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", b"%d" % len(content)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.logger.warning("Request refused: %d %s", status, message)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + content)
        self.transport.close()

    def is_answering(self) -> bool:
        """Return whether the response to a request is still to come or incomplete."""
        return self.cycle is not None and not self.cycle.response_complete

    def is_unread(self) -> bool:
        """Return whether the client may still be sending data that will not be read."""
        return self._discarding or (self.cycle is not None and self.cycle.more_body)

    def linger(self) -> None:
        """Discard input until the client closes the connection or `LINGER_S` has passed."""
        self._discarding = True
        self._unparsed_bytes = 0
        self.flow.resume_reading()
        self._disarm()
        self._deadline = self.loop.call_later(LINGER_S, self._transport.abort)

    def _drop(self, size: int) -> None:
        self._unparsed_bytes += size
        if self._unparsed_bytes > LINGER_BYTES:
            self._transport.abort()

    def shutdown(self) -> None:
        """Start the shutdown; a connection that only discards input is aborted."""
        if self.transport.is_closing():
            self._transport.abort()
        else:
            super().shutdown()

    def _arm(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- responses -------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Not stored on the cycle: that would create a reference cycle for the garbage collector.
        def with_joined_writes(scope: Any, receive: Any, send: Any) -> Any:
            return app(scope, receive, ResponseSender(cycle, self.keeps_connection).send)

        super()._start_asgi_task(cycle, with_joined_writes)

    def keeps_connection(self, cycle: RequestResponseCycle) -> bool:
        """Return whether the connection can be reused after a response that starts now.

        It cannot if much of the request's body is missing, or if the client waits for
        `100 Continue`, because it may or may not send the body anyway.
        """
        if not cycle.more_body:
            return True
        return not cycle.waiting_for_100_continue and self._body_bytes <= DRAIN_BYTES


class _OrderlyTransport:
    """A transport that the client can read completely after `close`.

    Closing a socket with unread input resets the connection, and a reset discards sent data.
    """

    __slots__ = (
        "_closing",
        "_protocol",
        "_transport",
        "get_extra_info",
        "pause_reading",
        "resume_reading",
        "write",
    )

    def __init__(self, transport: asyncio.Transport, protocol: Protocol) -> None:
        self._transport = transport
        self._protocol: Protocol | None = protocol
        self._closing = False
        self.write = transport.write
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if self._protocol is None or not self._protocol.is_unread():
            self._transport.close()
            return
        self._closing = True
        self._protocol.linger()
        self._transport.write_eof()

    def detach(self) -> None:
        """Break the reference cycle with the protocol."""
        self._protocol = None
