"""Load on one server: by wrk if it is installed, otherwise by an asyncio client."""

import asyncio
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
KEY = b"{key}"
"""Replaced in each request by a text that is unique within a measurement."""
NO_WRK = "wrk is not installed (on Debian: apt-get install wrk); using an asyncio client"


class RequestsFailed(Exception):
    """Some requests got another response than 2xx, or none."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement; `rate` is responses per second."""

    rate: float
    p50_ms: float
    p99_ms: float
    responses: int


def tool() -> str:
    """Return the name of the load generator."""
    return "wrk" if has_wrk() else "an asyncio client"


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


def post(url: str, body: bytes, **headers: str) -> bytes:
    """Return an HTTP request; `_` in the names of headers stands for `-`."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += ["Content-Type: application/json"] if "Content_Type" not in headers else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def measure(
    url: str, requests: Sequence[bytes], *, connections: int, seconds: float, first: int = 0
) -> Measured:
    """Send requests, one after the other and over again, with one in flight per connection.

    Args:
        url: the server; its path is ignored.
        seconds: how long; wrk rounds them to whole ones.
        first: position of the request to begin with.

    Raises:
        RequestsFailed: a response was not 2xx, or did not come.
    """
    if has_wrk():
        return _wrk(url, requests, connections, seconds, first)
    return asyncio.run(_asyncio(url, requests, connections, seconds, first))


def parse_wrk(output: str) -> Measured:
    """Return what `wrk.lua` printed.

    Raises:
        RequestsFailed: a request failed, or there is no result.
    """
    found = re.search(r"^result: (\{.*\})$", output, re.MULTILINE)
    if found is None:
        raise RequestsFailed(f"wrk printed no result: {output[-500:]}")
    result = json.loads(found[1])
    failed = {reason: count for reason, count in result["errors"].items() if count}
    if failed or not result["responses"]:
        raise RequestsFailed(f"of {result['responses']} responses: {failed or 'no response'}")
    return Measured(
        rate=result["responses"] / result["seconds"],
        p50_ms=result["p50_us"] / 1000,
        p99_ms=result["p99_us"] / 1000,
        responses=result["responses"],
    )


def _wrk(
    url: str, requests: Sequence[bytes], connections: int, seconds: float, first: int
) -> Measured:
    with tempfile.NamedTemporaryFile("wb", suffix=".http") as file:
        file.writelines(b"%d\n%b" % (len(request), request) for request in requests)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", "10s", "-s", str(WRK_SCRIPT), url, "--"]
        command += [file.name, str(first), str(time.time_ns())]
        finished = subprocess.run(command, capture_output=True, text=True)
    return parse_wrk(finished.stdout + finished.stderr)


async def _asyncio(
    url: str, requests: Sequence[bytes], connections: int, seconds: float, first: int
) -> Measured:
    parts, run = urlsplit(url), time.time_ns()
    numbers, durations = itertools.count(first), list[float]()
    started = time.perf_counter()

    async def send_until_deadline() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while (sent := time.perf_counter()) < started + seconds:
                number = next(numbers)
                request = requests[number % len(requests)]
                writer.write(request.replace(KEY, b"%d-%d" % (run, number)))
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                if not head.startswith(b"HTTP/1.1 2") or length is None:
                    raise RequestsFailed(head.decode())
                await reader.readexactly(int(length[1]))
                durations.append(time.perf_counter() - sent)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(send_until_deadline())
    except* (OSError, EOFError, RequestsFailed) as failed:
        raise RequestsFailed(str(failed.exceptions[0])) from failed
    durations.sort()
    return Measured(
        rate=len(durations) / (time.perf_counter() - started),
        p50_ms=durations[len(durations) // 2] * 1000,
        p99_ms=durations[len(durations) * 99 // 100] * 1000,
        responses=len(durations),
    )
