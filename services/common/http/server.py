"""Listen on a socket and serve an app on it until a signal stops it."""

import gc
import os
import socket
from collections.abc import Sequence
from typing import Any, Literal

import uvicorn

from services.common.http.protocol import Protocol
from services.common.settings import exit_with_error
from services.common.shutdown import FINISH_S, LAST_CALL_S, StoppingServer, end_process

SECURITY_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]
"""Headers of every response: answers, errors and what the protocol refuses. Pages add a policy."""
ACCEPTED_PER_TURN = 16
"""How many connections uvloop accepts in one turn of the event loop."""


def listen(host: str, port: int, *, variable: str) -> socket.socket:
    """Bind a service's listening socket.

    Raises:
        SystemExit: the port is in use or not allowed; one line names the variable.
    """
    try:
        listener = socket.create_server((host, port), backlog=2048)
        # Connections inherit this; asyncio only sets it on sockets it created itself. Without it,
        # the second write of a response waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        exit_with_error(
            f"{variable}: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
        )


def serve(
    app: Any,
    listener: socket.socket,
    *,
    trusted_proxies: Sequence[str] = (),
    trusted_hosts: Sequence[str] = (),
    loop: Literal["asyncio", "uvloop"] = "asyncio",
    protocol: type[Protocol] = Protocol,
) -> None:
    """Run an ASGI app on a bound socket until SIGINT or SIGTERM, then finish running requests.

    Args:
        trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto`
            determine the client's address and scheme.
        trusted_hosts: the only host names, such as `auth.example.com` or `*.example.com`, that
            requests may name, except those of probes; empty for any.
        loop: services that use SQL need `asyncio`, because aiomysql cannot reconnect on uvloop.
    """
    config = uvicorn.Config(
        app,
        loop=loop,
        http=protocol.for_hosts(trusted_hosts),
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(FINISH_S - LAST_CALL_S),
        access_log=False,
        server_header=False,
        headers=SECURITY_HEADERS,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        log_config=None,
    )
    # All objects created so far are permanent; scanning them in every full garbage collection
    # would delay requests by about 50 ms.
    gc.freeze()
    gc.enable()
    listeners = repeated(listener) if loop == "uvloop" else [listener]
    StoppingServer(config).run(sockets=listeners)
    end_process()


def repeated(listener: socket.socket) -> list[socket.socket]:
    """Return a listening socket and duplicates of it, for uvloop.

    It accepts one connection per turn of the event loop and socket. While the turns are long, more
    connections arrive than that, and some would wait for as long as the load lasts.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTED_PER_TURN - 1))]
