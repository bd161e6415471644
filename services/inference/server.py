"""The HTTP protocol of inference: every service's, with a hook for the fast path.

A request whose body arrives together with its head is held back until it is complete, and then
offered to the fast path. If that declines, or the body is still on its way, the app answers.
"""

import asyncio
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from services.common.http.protocol import Protocol
from services.inference.api.fast_path import DEFERRED, FAST_PATH, Answer, FastPath


class InferenceProtocol(Protocol):
    """One connection, on which predictions may be answered without the app."""

    _held: bytes | None = None
    """The body so far of a request that the app has not been given."""
    _deferring = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._fast_path: FastPath | None = self.app_state.get(FAST_PATH)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:
            held, self._held = self._held, None
            if not self.transport.is_closing():  # the rest of the body may take long
                self._pass_to_app(held)

    def start_request(self) -> None:
        if self._may_be_fast():
            self._held = b""
        else:
            super().start_request()

    def add_body(self, body: bytes) -> None:
        if self._held is None:
            super().add_body(body)
        else:
            self._held += body

    def end_request(self) -> None:
        content, self._held = self._held, None
        if content is None or self._fast_path is None:
            super().end_request()
            return
        self.scope["method"] = "POST"
        self.scope["path"] = self.url.decode("ascii")
        answer = self._fast_path.answer(cast(Scope, self.scope), content, self._respond_later)
        if answer is None:
            self._pass_to_app(content)
            super().end_request()
        elif answer is DEFERRED:
            self._deferring = True
            self._pass_to_app(content)
            self._deferring = False
            super().end_request()
        else:
            self._write(answer, self.server_state.default_headers)
            self.on_response_complete()

    def _may_be_fast(self) -> bool:
        """Return whether a response can be written as soon as the request is complete."""
        return (
            self._fast_path is not None
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and b"?" not in self.url
            and b"%" not in self.url
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and "stopping" not in self.app_state
        )

    def _pass_to_app(self, body: bytes) -> None:
        """Let the app answer the request, unless its answer is deferred."""
        super().start_request()
        super().add_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._deferring:
            super()._start_asgi_task(cycle, app)

    def _respond_later(self, answer: Answer | None) -> None:
        """Send a deferred answer, or let the app answer."""
        cycle = self.cycle
        if answer is None:
            self._start_asgi_task(cycle, self.app)
        elif not cycle.disconnected:
            self._write(answer, cycle.default_headers)
            cycle.response_started = cycle.response_complete = True
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()

    def _write(self, answer: Answer, default_headers: list[tuple[bytes, bytes]]) -> None:
        lines = [b"%b: %b\r\n" % header for header in default_headers]
        self.transport.write(
            b"".join([STATUS_LINE[200], *lines, answer.headers, b"\r\n", answer.content])
        )
