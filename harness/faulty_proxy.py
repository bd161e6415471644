"""A TCP proxy whose faults a test chooses."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

Fault = Literal[
    "slow", "hang", "trickle", "500", "429", "403", "403 to writes", "reset", "reply lost"
]
SLOW_S = 1.0


class Proxy:
    """Runs in its own thread; forwards everything until a fault is set."""

    def __init__(self, *, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.upstream = 0
        self.hits = 0
        """Connections that met a fault."""
        self._port = port
        self._fault: Fault | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._serving: set[asyncio.Task[None] | None] = set()
        """One task per open connection; without a reference, tasks may be garbage-collected."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def fail(self, fault: Fault) -> None:
        """Apply a fault to every connection from now on; close the open ones."""
        self._set(fault)

    def pass_on(self) -> None:
        """Forward everything."""
        self._set(None)

    def _set(self, fault: Fault | None) -> None:
        applied = threading.Event()

        def change() -> None:
            self._fault, self.hits = fault, 0
            for task in filter(None, self._serving):
                task.cancel()
            applied.set()

        self._loop.call_soon_threadsafe(change)
        applied.wait()

    def _run(self) -> None:
        loop = self._loop
        server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self._port))
        loop.run_forever()
        server.close()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        fault = self._fault
        self.hits += fault is not None
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._respond(fault, reader, writer)
        finally:
            self._serving.discard(task)
            writer.close()

    async def _respond(
        self, fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fault == "reset":
            await reader.read(1)
            linger = struct.pack("ii", 1, 0)  # RST instead of FIN
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        if fault == "hang":
            await reader.read()
            return
        if fault == "trickle":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        head = b""
        if fault in ("500", "429", "403", "403 to writes"):
            head = await reader.readuntil(b"\r\n\r\n")
            if fault != "403 to writes" or head.startswith(b"POST"):
                status = fault[:3].encode()
                writer.write(b"HTTP/1.1 %s No\r\nContent-Length: 0\r\n\r\n" % status)
                await writer.drain()
                return
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        upstream_writer.write(head)
        forwarding = asyncio.create_task(_pump(reader, upstream_writer.write))
        try:
            if fault == "reply lost":
                await upstream_reader.read(1)
            else:
                await _pump(upstream_reader, writer.write)
        finally:
            forwarding.cancel()
            upstream_writer.close()


async def _cancel(tasks: set[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, write: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            write(data)
