"""How a server ends without cutting anybody off, and without being held up by anybody."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from socket import socket
from types import FrameType

import structlog
import uvicorn

FINISH_S = 20
"""Seconds a stopping service gives to requests that have begun."""
LAST_CALL_S = 2.0
"""How many of them idle connections are left open."""

_TICK_S = 0.1
_THREADS_S = 1.0
_CLOSE = (b"connection", b"close")

log = structlog.get_logger()


class StoppingServer(uvicorn.Server):
    """Uvicorn's server, but for its end.

    Uvicorn closes idle connections as soon as it is told to stop. A request that is on its way on
    one of them is lost, and its client cannot know whether it was answered; proxies that pass on
    connections, as a Kubernetes Service does, bring requests up to the last moment. Here every
    answer first says `Connection: close` for a while (RFC 9112 §9.6), so that clients go elsewhere
    by themselves; what is idle after `LAST_CALL_S` is closed then. Meanwhile `/readyz` answers 503.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second SIGINT hurries.

        Uvicorn would raise the signal once more at the end: to have stopped in order is no failure.
        """
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    async def shutdown(self, sockets: Sequence[socket] | None = None) -> None:
        self.lifespan.state["stopping"] = True
        last_call_until = time.monotonic() + LAST_CALL_S
        while time.monotonic() < last_call_until and not self.force_exit:
            await self._say_close()
            if not self.server_state.connections:
                break
            await asyncio.sleep(_TICK_S)
        await super().shutdown(list(sockets or []))

    async def _say_close(self) -> None:
        """Have all answers that have not begun yet say that their connection ends with them."""
        await self.on_tick(0)  # which renews the headers of all answers: `Date`
        self.server_state.default_headers.append(_CLOSE)
        for connection in self.server_state.connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_started:
                cycle.default_headers = self.server_state.default_headers


def leave() -> None:
    """Let the process end even if a thread is stuck.

    A model's computation cannot be cancelled, and the interpreter would wait for it for ever. By
    now all that was to be saved is saved.
    """
    deadline = time.monotonic() + _THREADS_S
    others = [thread for thread in threading.enumerate() if not thread.daemon]
    others.remove(threading.main_thread())
    for thread in others:
        thread.join(max(deadline - time.monotonic(), 0))
    stuck = [thread.name for thread in others if thread.is_alive()]
    if stuck:
        log.error("threads_stuck", threads=stuck)
        logging.shutdown()
        os._exit(1)
