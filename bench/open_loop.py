"""Send requests at a given rate, whether or not the earlier ones have been answered.

python -m bench.open_loop <url> <folder of *.http> <requests per second> <seconds>

Prints, as JSON per status: the number of responses, how many of them came within the given time,
and the 99th percentile of how long they took. `timeout`, `closed` and `not sent` count as statuses.
A request that finds no free connection opens one.
"""

import asyncio
import json
import resource
import sys
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

TIMEOUT_S = 10.0
MAX_CONNECTIONS = 3_000
TICK_S = 0.005

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class OpenLoop:
    """Owns the connections; `responses` are seconds since the start, and duration, by status."""

    def __init__(self, url: str, requests: list[bytes]) -> None:
        self._address = urlsplit(url)
        self._requests = requests
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = time.perf_counter()
        self.responses: dict[str, list[tuple[float, float]]] = defaultdict(list)

    async def run(self, *, rate: float, seconds: float) -> None:
        """Send requests for some seconds, and wait for the last responses."""
        self._started, sent = time.perf_counter(), 0
        while (elapsed_s := time.perf_counter() - self._started) < seconds:
            due = int(elapsed_s * rate)
            for number in range(sent, due):
                if len(self._tasks) >= MAX_CONNECTIONS:
                    self.responses["not sent"].append((elapsed_s, 0.0))
                    continue
                task = asyncio.create_task(self._send(self._requests[number % len(self._requests)]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            sent = due
            await asyncio.sleep(TICK_S)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * TIMEOUT_S)

    async def _send(self, request: bytes) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._exchange(request)
        except TimeoutError:
            status = "timeout"
        except (OSError, EOFError):
            status = "closed"
        ended = time.perf_counter()
        self.responses[status].append((ended - self._started, ended - started))

    async def _exchange(self, request: bytes) -> str:
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            await reader.readexactly(int(fields["content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return head.split()[1]

    async def _connect(self) -> Connection:
        return await asyncio.open_connection(self._address.hostname, self._address.port)


def main() -> None:
    """Send, and print the result."""
    url, folder, rate, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    requests = [path.read_bytes() for path in sorted(Path(folder).glob("*.http"))]
    loop = OpenLoop(url, requests)
    uvloop.run(loop.run(rate=float(rate), seconds=float(seconds)))
    result = {
        status: summary(responses, seconds=float(seconds))
        for status, responses in loop.responses.items()
    }
    sys.stdout.write(json.dumps(result))


def summary(responses: list[tuple[float, float]], *, seconds: float) -> dict[str, float]:
    """Return what `main` prints for the responses with one status, of which there is at least one.

    Args:
        responses: seconds since the start, and duration, of each.
    """
    durations = sorted(duration for _, duration in responses)
    return {
        "responses": len(responses),
        "in_time": sum(at <= seconds for at, _ in responses),
        "p99_ms": durations[len(durations) * 99 // 100] * 1000,
    }


if __name__ == "__main__":
    main()
