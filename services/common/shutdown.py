"""Stop a server gracefully, without losing requests and without waiting indefinitely."""

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
"""Seconds that a stopping service waits for requests in progress."""
LAST_CALL_S = 2.0
"""How many of these seconds idle connections stay open."""

_TICK_S = 0.1
_THREADS_S = 1.0
CLOSE = (b"connection", b"close")
"""The header of the last response on a connection."""

log = structlog.get_logger()


class StoppingServer(uvicorn.Server):
    """Uvicorn's server with a graceful shutdown.

    Uvicorn closes idle connections as soon as it receives a signal. A request in transit on such a
    connection is lost, and its client cannot know whether it was processed. A Kubernetes Service
    and other proxies send requests on existing connections until the last moment. This server
    therefore first adds `Connection: close` to every response (RFC 9112 §9.6), so that clients
    reconnect elsewhere, and closes idle connections after `LAST_CALL_S`. Meanwhile `/readyz`
    returns 503.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown; a second SIGINT forces it.

        Unlike uvicorn's, this does not raise the signal again at the end, because an orderly stop
        is not a failure.
        """
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    async def shutdown(self, sockets: Sequence[socket] | None = None) -> None:
        self.lifespan.state["stopping"] = True
        last_call_until = time.monotonic() + LAST_CALL_S
        while time.monotonic() < last_call_until and not self.force_exit:
            await self._announce_close()
            if not self.server_state.connections:
                break
            await asyncio.sleep(_TICK_S)
        await super().shutdown(list(sockets or []))

    async def _announce_close(self) -> None:
        """Add `Connection: close` to all responses that have not started yet."""
        await self.on_tick(0)  # resets the default headers, with a new `Date`
        self.server_state.default_headers.append(CLOSE)
        for connection in self.server_state.connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_started:
                cycle.default_headers = self.server_state.default_headers


def end_process() -> None:
    """End the process even if a thread is stuck.

    A model's computation cannot be cancelled, and the interpreter would wait for it without limit.
    All state has been saved by now.
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
