"""Latency of `/healthz` while one account sends large invalid bodies over three connections."""

import asyncio
import http.client
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

from bench.figures import Figure
from cli.die_with_parent import die_with_parent
from harness.programs import ROOT
from harness.samples import PREDICT
from harness.services import ServiceProcesses

BODY_BYTES = 8 << 20
CONNECTIONS = 3
SECONDS = 4.0
PAUSE_S = 0.005


def _repeated(unit: bytes, start: bytes = b'{"instances":[') -> bytes:
    return start + (unit * (BODY_BYTES // len(unit) - 10)).removesuffix(b",") + b"]}"


BODIES = {
    "nested lists": _repeated(b"[[]],"),
    "empty objects": _repeated(b"{},", b'{"instances":[":",'),
    "unexpected columns": b'{"instances":[{%b}]}'
    % b",".join(b'"%06d":1' % number for number in range(600_000)),
}


async def floods(platform: ServiceProcesses) -> list[Figure]:
    """Measure the slowest response of `/healthz` for each kind of body."""
    return [await asyncio.to_thread(_flood, platform, kind) for kind in BODIES]


def _flood(platform: ServiceProcesses, kind: str) -> Figure:
    url = platform.urls["inference"]
    arguments = ("bench.floods", url, kind, platform.new_token())
    flooding = subprocess.Popen(
        die_with_parent(sys.executable, "-m", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = []
    connection = _connect(url)
    while flooding.poll() is None:
        started = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - started)
        time.sleep(PAUSE_S)
    connection.close()
    refused, _ = flooding.communicate()
    if flooding.returncode:
        raise RuntimeError(f"the flood of {kind} failed")
    return Figure(
        f"/healthz at worst, during a flood of {kind}",
        max(seconds) * 1000,
        "ms",
        f"{len(seconds):,} responses, {refused.strip()} refused bodies of 8 MB",
        at_most=100.0,
    )


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)


def main() -> None:
    """Send one kind of body to a service repeatedly; print how many were refused."""
    url, kind, token = sys.argv[1:]
    deadline = time.monotonic() + SECONDS
    statuses: list[int] = []

    def send() -> None:
        connection = _connect(url)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while time.monotonic() < deadline:
            connection.request("POST", PREDICT, BODIES[kind], headers)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if set(statuses) != {422}:
        sys.exit(f"responses: {sorted(set(statuses))}, expected only 422")
    sys.stdout.write(f"{len(statuses)}\n")


if __name__ == "__main__":
    main()
