"""Benchmark of releases under load: no request should fail, and latency should hardly change."""

import asyncio
import time
from dataclasses import dataclass

import orjson

from bench.figures import Figure
from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses
from harness.stores import PlatformStore
from registry.releases import ReleaseManager

CLIENTS = 8
BEFORE_S = 5.0
SWAPS = 10
SWAP_EVERY_S = 2.5  # longer than the poll interval, so that each goes live
SLOWER_AT_MOST = 3


@dataclass(slots=True)
class Load:
    """The requests of all clients; times in seconds."""

    starts: list[float]
    durations: list[float]
    versions: set[str]
    failed: int = 0

    def p99_ms(self, since: float, until: float) -> float:
        """Return the 99th percentile of the requests that began between two moments."""
        durations = sorted(
            duration
            for at, duration in zip(self.starts, self.durations, strict=True)
            if since <= at < until
        )
        return durations[int(len(durations) * 0.99)] * 1000


async def swaps(platform: ServiceProcesses) -> list[Figure]:
    """Measure failed requests, and the 99th percentile before and while releases go live."""
    load = Load([], [], set())
    token = await asyncio.to_thread(platform.new_token)
    done = asyncio.Event()
    clients = [
        asyncio.create_task(_predict_until(platform, token, load, done)) for _ in range(CLIENTS)
    ]
    await asyncio.sleep(1.0)
    started = time.perf_counter()
    await asyncio.sleep(BEFORE_S)
    swapping = time.perf_counter()
    for _ in range(SWAPS):
        await asyncio.to_thread(_release_a_copy, platform)
        await asyncio.sleep(SWAP_EVERY_S)
    ended = time.perf_counter()
    done.set()
    await asyncio.gather(*clients)

    before, during = load.p99_ms(started, swapping), load.p99_ms(swapping, ended)
    detail = f"{len(load.durations):,} requests, {len(load.versions)} versions answered"
    return [
        Figure(
            "requests answered ÷ sent, releases going live", _share(load), "×", detail, at_least=1.0
        ),
        Figure(
            "p99 before ÷ p99 while releases go live",
            before / during,
            "×",
            f"{before:.1f} and {during:.1f} ms, {CLIENTS} clients, {SWAPS} releases",
            at_least=round(1 / SLOWER_AT_MOST, 2),
        ),
    ]


def _share(load: Load) -> float:
    return len(load.durations) / (len(load.durations) + load.failed)


async def _predict_until(
    platform: ServiceProcesses, token: str, load: Load, done: asyncio.Event
) -> None:
    """Send requests over one connection until `done`; count a failure, and stop after it."""
    body = orjson.dumps({"instances": [WINE]})
    request = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.ports["inference"])
    try:
        while not done.is_set():
            started = time.perf_counter()
            writer.write(request)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            await reader.readexactly(int(headers["content-length"]))
            if " 200 " not in f"{status} ":
                load.failed += 1
                return
            load.starts.append(started)
            load.durations.append(time.perf_counter() - started)
            load.versions.add(headers["x-model-version"])
            await asyncio.sleep(0.002)  # load, but no queue: this measures the swap
    except (OSError, asyncio.IncompleteReadError):
        load.failed += 1
    finally:
        writer.close()


def _release_a_copy(platform: ServiceProcesses) -> None:
    """Publish the live version under a new name, and release it."""
    platform_store = PlatformStore(platform.home)
    version = platform_store.publish_copy("wine")
    release_manager = ReleaseManager(
        store=platform_store.store, trusted=platform_store.trusted, by="bench"
    )
    release_manager.release("wine", version=version, reason="a swap under load")
