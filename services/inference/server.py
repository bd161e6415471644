"""The HTTP protocol of inference: every service's, with the hook of the fast path.

A prediction whose body is short, or on its way, is held back until it is complete and then offered
to the fast path. If that declines, the app answers.

Most clients send the same head with every request of a connection. Equal bytes mean the same, so a
head that was parsed and answered once is compared instead of being parsed again.
"""

import asyncio
from typing import Any, NamedTuple, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from services.common.http.protocol import Protocol
from services.common.shutdown import CLOSE
from services.inference.api.fast_path import (
    DEFERRED,
    FAST_PATH,
    Answer,
    FastPath,
    FastRequest,
    Headers,
)

HOLD_S = 0.05
"""How long a request waits for the rest of its body before the app begins with it."""
MAX_KNOWN_HEAD_BYTES = 4096
"""The longest head that a connection remembers."""


class _KnownHead(NamedTuple):
    """A head that was answered, and the size of the whole request in bytes."""

    head: bytes
    size: int
    request: FastRequest


class InferenceProtocol(Protocol):
    """One connection, on which predictions may be answered without the app."""

    _fast_path: FastPath | None
    _request: FastRequest | None = None
    """The request that is held back."""
    _held = b""
    """Its body so far."""
    _hold_timer: asyncio.TimerHandle | None = None
    _deferring = False
    _deferred: RequestResponseCycle
    """The request whose answer waits for the journal."""
    _known: _KnownHead | None = None
    _sampled: dict[str, Any] | None = None
    """The state of the next request, if it is already decided whether it begins a trace."""
    _started = 0
    """How many requests began in the data being parsed."""
    _used_at = float("-inf")
    """When the fast path last answered."""
    _answered: FastRequest | None = None
    """The last request that was answered at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._fast_path = self.app_state.get(FAST_PATH)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_holding()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._request is not None:
            self._give_to_app()  # it is finished like any other that has begun
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        known = self._known
        if (
            known is not None
            and len(data) == known.size
            and data.startswith(known.head)
            and not self._receiving
            and self._deadline is None
            and self._may_answer()
            and not self._begins_trace()
            and self._answer(known.request, data[len(known.head) :])
        ):
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        is_new, self._started, self._answered = not self._receiving, 0, None
        super().data_received(data)
        if self._discarding:
            self._stop_holding()
        elif self._request is not None and self._hold_timer is None:
            self._hold()
        is_one = is_new and self._started == 1 and not self._receiving
        self._known = _known_head(data, self._answered) if is_one and self._answered else None

    # -- from the request's head to its end ------------------------------------------------------

    def start_request(self) -> None:
        self._started += 1
        if self._sampled is not None:
            self.scope["state"].update(self._sampled)
            self._sampled = None
        self._request = self._read_head()
        if self._request is None:
            self._start_app()

    def add_body(self, body: bytes) -> None:
        if self._request is None:
            super().add_body(body)
        else:
            self._held += body

    def end_request(self) -> None:
        request, content = self._request, self._held
        if request is None:
            super().end_request()
            return
        self._stop_holding()
        if not (self._may_answer() and self._answer(request, content)):
            self._pass_to_app(content)
            super().end_request()

    def _read_head(self) -> FastRequest | None:
        """Return the request if the fast path may answer it once it is complete."""
        if (
            self._fast_path is None
            or self.expect_100_continue
            or not self._may_answer()
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
        ):
            return None
        tracing = self._fast_path.tracing
        if tracing is not None:
            self.scope["method"] = "POST"
            if tracing.wants(cast(Scope, self.scope)):
                return None
        return self._fast_path.read_head(self.url.decode("ascii", "replace"), self.headers)

    def _begins_trace(self) -> bool:
        """Decide whether the next request, whose head is known, begins a trace."""
        tracing = self._fast_path.tracing if self._fast_path else None
        if tracing is None:
            return False
        self._sampled = {}
        return tracing.wants({"method": "POST", "headers": [], "state": self._sampled})

    def _may_answer(self) -> bool:
        """Return whether a response can be written now, and the connection be kept."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and "stopping" not in self.app_state
            and not self.transport.is_closing()
        )

    def _hold(self) -> None:
        """Wait a moment for the rest of a request, unless its `X-Request-Timeout` is running."""
        if self._request is not None and self._request.head.timeout_s is not None:
            self._give_to_app()
        else:
            self._hold_timer = self.loop.call_later(HOLD_S, self._give_to_app)

    def _stop_holding(self) -> None:
        self._request, self._held = None, b""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None

    def _give_to_app(self) -> None:
        """Let the app begin with a request that is not complete yet."""
        held = self._held
        self._stop_holding()
        self._pass_to_app(held)

    def _pass_to_app(self, body: bytes) -> None:
        self._start_app()
        super().add_body(body)

    def _start_app(self) -> None:
        self._unset_keepalive_if_required()  # an answer in the same packet may have set it
        super().start_request()

    # -- the answer ------------------------------------------------------------------------------

    def _answer(self, request: FastRequest, content: bytes) -> bool:
        """Answer a complete request, now or later; return False if the app must answer it."""
        if self._fast_path is None:
            return False
        answer = self._fast_path.answer(request, content, self._respond_later)
        if answer is None:
            return False
        if answer is DEFERRED:
            self._defer(content)
        else:
            self._write(answer, self.server_state.default_headers)
            self._keep_alive()
            self._answered = request
        return True

    def _keep_alive(self) -> None:
        """Finish a request; the connection's timer is not set anew by each, but looks back."""
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def timeout_keep_alive_handler(self) -> None:
        left_s = self._used_at + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )

    def _defer(self, content: bytes) -> None:
        """Prepare everything for the app, which answers if the fast path cannot after all.

        Meanwhile, this connection's next requests wait.
        """
        self._deferring = True
        self._pass_to_app(content)
        self._deferring = False
        self._deferred = self.cycle
        super().end_request()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._deferring:
            super()._start_asgi_task(cycle, app)

    def _respond_later(self, answer: Answer | None) -> None:
        """Send a deferred answer, or let the app answer."""
        cycle = self._deferred
        if answer is None:
            self._start_asgi_task(cycle, self.app)
        elif not self.transport.is_closing():
            headers = cycle.default_headers
            if not cycle.keep_alive and CLOSE not in headers:
                headers = [*headers, CLOSE]
            self._write(answer, headers)
            cycle.response_started = cycle.response_complete = True
            cycle.body.clear()
            if CLOSE in headers:
                self.transport.close()
            self.on_response_complete()

    def _write(self, answer: Answer, default_headers: Headers) -> None:
        lines = [b"%b: %b\r\n" % header for header in default_headers]
        self.transport.write(
            b"".join([STATUS_LINE[200], *lines, answer.headers, b"\r\n", answer.content])
        )


def _known_head(data: bytes, request: FastRequest) -> _KnownHead | None:
    """Return the head of the only request in `data`, if it is worth remembering.

    It is not if there are blank lines before or after the request.
    """
    size = data.find(b"\r\n\r\n") + 4
    if size > MAX_KNOWN_HEAD_BYTES or size + request.head.length != len(data):
        return None
    return _KnownHead(data[:size], len(data), request)
