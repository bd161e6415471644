"""The listening sockets of services that run on uvloop."""

import asyncio
import socket
import time
from contextlib import ExitStack

import uvloop

from services.common.http.server import ACCEPTED_PER_TURN, repeated


async def count_turns(listeners: list[socket.socket], *, connections: int) -> int:
    """Return how many turns of a busy event loop it takes to accept so many connections."""
    loop = asyncio.get_running_loop()
    accepted = 0

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal accepted
            accepted += 1
            transport.close()

    servers = [await loop.create_server(Counting, sock=each) for each in listeners]
    with ExitStack() as clients:
        for _ in range(connections):
            address = listeners[0].getsockname()
            clients.enter_context(socket.create_connection(address, timeout=5))
        turns = 0
        while accepted < connections and turns < 10 * connections:
            time.sleep(0.0005)  # noqa: ASYNC251  # the turn is busy
            await asyncio.sleep(0)
            turns += 1
    for server in servers:
        server.close()
    assert accepted == connections
    return turns


def test_a_busy_event_loop_accepts_many_connections_in_a_turn() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        turns = uvloop.run(count_turns(repeated(listener), connections=4 * ACCEPTED_PER_TURN))

    assert turns <= 16
