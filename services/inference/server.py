"""The HTTP protocol of inference: every service's, with the hook of the fast path.

A prediction whose body is short, or on its way, is held back until it is complete and then offered
to the fast path. If that declines, the app answers.

Most clients send the same head with every request of a connection. Equal bytes mean the same, so a
head that was parsed and answered once is compared instead of being parsed again.
"""

import asyncio
import time
from functools import lru_cache
from typing import Any, NamedTuple, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from services.common.http.protocol import Protocol
from services.common.shutdown import CLOSE
from services.inference.api.fast_path import FAST_PATH, FastPath
from services.inference.api.offers import FastRequest, Offer

MAX_KNOWN_HEAD_BYTES = 4096
"""The longest head that a connection remembers."""


class _KnownHead(NamedTuple):
    """A head that was answered, and the size of the whole request in bytes."""

    head: bytes
    size: int
    request: FastRequest


class InferenceProtocol(Protocol):
    """One connection, on which predictions may be answered without the app."""

    hold_s = 0.05
    """How long a request waits for the rest of its body before the app begins with it."""
    _fast_path: FastPath | None
    _request: FastRequest | None = None
    """The request that is held back."""
    _held = b""
    """Its body so far."""
    _hold_timer: asyncio.TimerHandle | None = None
    _offer: Offer | None = None
    """The request that was offered to the fast path in this turn of the event loop."""
    _is_deferred = False
    """Whether its answer waits for the journal."""
    _is_preparing = False
    _prepared: RequestResponseCycle | None = None
    """What the app needs to answer a deferred request, made when the next request arrives."""
    _known: _KnownHead | None = None
    _sampled: dict[str, Any] | None = None
    """The state of the next request, if it is already decided whether it begins a trace."""
    _started = 0
    """How many requests began in the data being parsed."""
    _used_at = float("-inf")
    """When the fast path last answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._fast_path = self.app_state.get(FAST_PATH)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_holding()
        if self._offer is not None and self._fast_path is not None and not self._is_deferred:
            self._fast_path.drop(self._offer)
            self._offer = None
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        self._settle_offer()
        return super().eof_received()

    def shutdown(self) -> None:
        self._settle_offer()
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
        ):
            self._make_offer(known.request, data[len(known.head) :])
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._settle_offer()
        is_new, self._started = not self._receiving, 0
        super().data_received(data)
        if self._discarding:
            self._stop_holding()
        elif self._request is not None and self._hold_timer is None:
            self._hold()
        is_one = is_new and self._started == 1 and not self._receiving
        self._known = _known_head(data, self._offer.request) if is_one and self._offer else None

    # -- from the request's head to its end ------------------------------------------------------

    def on_message_begin(self) -> None:
        self._settle_offer()  # before the next request of the same data replaces it
        super().on_message_begin()

    def start_request(self) -> None:
        self._started += 1
        self._apply_sampling()
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
        if self._may_answer():
            self._make_offer(request, content)
        else:
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

    def _apply_sampling(self) -> None:
        if self._sampled is not None:
            self.scope["state"].update(self._sampled)
            self._sampled = None

    def is_answering(self) -> bool:
        return self._offer is not None or super().is_answering()

    def _may_answer(self) -> bool:
        """Return whether a response can be written now, and the connection be kept."""
        return (
            self._offer is None
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and "stopping" not in self.app_state
            and not self.transport.is_closing()
        )

    def _hold(self) -> None:
        """Wait a moment for the rest of a request, unless its `X-Request-Timeout` is running."""
        if self._request is not None and self._request.head.timeout_s is not None:
            self._give_to_app()
        else:
            self._hold_timer = self.loop.call_later(self.hold_s, self._give_to_app)

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

    def give_up(self, status: int, message: str) -> None:
        self._settle_offer()
        super().give_up(status, message)

    # -- the answer ------------------------------------------------------------------------------

    def _make_offer(self, request: FastRequest, content: bytes) -> None:
        """Offer a complete request to the fast path."""
        if self._fast_path is not None:
            self._offer = Offer(self, request, content, time.perf_counter())
            self._fast_path.take(self._offer)

    def _settle_offer(self) -> None:
        """Have the offered request answered or declined, or make way for the next one."""
        if self._offer is None or self._fast_path is None:
            return
        if not self._is_deferred:
            self._fast_path.flush()
        if self._is_deferred and self._offer is not None:
            self._prepare_for_app()

    def send(self, answer: bytes) -> None:
        """Send the response to the offered request."""
        cycle, self._prepared = self._prepared, None
        self._offer, self._is_deferred, self._sampled = None, False, None
        if self.transport.is_closing():
            return
        if cycle is None:
            self._write(answer, self.server_state.default_headers)
            self._keep_alive()
            return
        headers = cycle.default_headers
        if not cycle.keep_alive and CLOSE not in headers:
            headers = [*headers, CLOSE]
        self._write(answer, headers)
        cycle.response_started = cycle.response_complete = True
        cycle.body.clear()
        if CLOSE in headers:
            self.transport.close()
        self.on_response_complete()

    def decline(self) -> None:
        """Let the app answer the offered request, unless its client has gone."""
        self._known = None
        if self.transport.is_closing():
            self._offer, self._prepared, self._is_deferred = None, None, False
            return
        if self._prepared is None:
            self._prepare_for_app()
        cycle, self._prepared, self._is_deferred = self._prepared, None, False
        if cycle is not None:
            super()._start_asgi_task(cycle, self.app)

    def defer(self) -> None:
        """Let the offered request wait for the journal, and this connection's next ones for it."""
        self._is_deferred = True

    def _prepare_for_app(self) -> None:
        """Do all that the app needs, except starting it.

        If the request's head was only compared, the parser's last result is still right.
        """
        offer, self._offer = self._offer, None
        if offer is None:
            return
        self._apply_sampling()
        self._is_preparing = True
        self._pass_to_app(offer.content)
        self._is_preparing = False
        self._prepared = self.cycle
        super().end_request()

    def _keep_alive(self) -> None:
        """Finish a request; the connection's timer is not set anew by each, but looks back."""
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def timeout_keep_alive_handler(self) -> None:
        if self._offer is not None:
            self._used_at = self.loop.time()
        left_s = self._used_at + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._is_preparing:
            super()._start_asgi_task(cycle, app)

    def _write(self, answer: bytes, default_headers: list[tuple[bytes, bytes]]) -> None:
        self.transport.write(_start_of_response(tuple(default_headers)) + answer)


@lru_cache(maxsize=16)
def _start_of_response(default_headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the status line and the lines of the headers that uvicorn gives every response."""
    return STATUS_LINE[200] + b"".join([b"%b: %b\r\n" % header for header in default_headers])


def _known_head(data: bytes, request: FastRequest) -> _KnownHead | None:
    """Return the head of the only request in `data`, if it is worth remembering.

    It is not if there are blank lines before or after the request.
    """
    size = data.find(b"\r\n\r\n") + 4
    if size > MAX_KNOWN_HEAD_BYTES or size + request.head.length != len(data):
        return None
    return _KnownHead(data[:size], len(data), request)
