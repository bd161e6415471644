"""The inference service against a bare app of the same model, and against itself unwatched."""

import json
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench import load
from bench.figures import Figure
from cli.leash import on_leash
from tests.collector import collecting
from tests.e2e.platform import PREDICT, ROOT, WINE, eventually
from tests.ports import free_port
from tests.processes import Processes

ROUNDS = 3
SECONDS = 4.0
WARM_UP_S = 1.0


async def predictions(platform: Processes) -> Figure:
    """Requests/s of one row, interleaved with those of the bare app."""
    model = next((platform.home / "models").glob("wine/versions/*/model.onnx"))
    port = free_port()
    with _running("bench.bare", str(model), str(port), port=port) as bare:
        rates = await _interleaved(platform, bare=bare, inference=platform.urls["inference"])
    ours, limit = rates["inference"], rates["bare"]
    return Figure(
        "predictions ÷ a bare app with the same model",
        ours / limit,
        "×",
        None,
        f"{ours:,.0f} and {limit:,.0f} req/s, {load.CONNECTIONS} connections, by {load.tool()}",
    )


async def drift(platform: Processes) -> Figure:
    """Requests/s of a process that samples rows for drift, interleaved with one that does not."""
    with (
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="1000") as on,
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="0") as off,
    ):
        rates = await _interleaved(platform, off=off, on=on)
    return Figure(
        "predictions, drift watched ÷ unwatched",
        rates["on"] / rates["off"],
        "×",
        0.95,
        f"{rates['on']:,.0f} and {rates['off']:,.0f} req/s of one row each",
    )


async def tracing(platform: Processes) -> Figure:
    """Requests/s of a process that traces one in a hundred, interleaved with one that does not."""
    with (
        collecting() as collector,
        _inference(
            platform,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_TRACES_SAMPLER="parentbased_traceidratio",
            OTEL_TRACES_SAMPLER_ARG="0.01",
        ) as on,
        _inference(platform) as off,
    ):
        rates = await _interleaved(platform, off=off, on=on)
    return Figure(
        "predictions, 1 in 100 traced ÷ untraced",
        rates["on"] / rates["off"],
        "×",
        0.9,
        f"{rates['on']:,.0f} and {rates['off']:,.0f} req/s; {len(collector.spans):,} spans came",
    )


@contextmanager
def _inference(platform: Processes, **environment: str) -> Iterator[str]:
    """An inference process of the platform on a port of its own; its URL."""
    port = free_port()
    own = platform.environment | {"INFERENCE_PORT": str(port)} | environment
    with _running("services.inference", port=port, environment=own) as url:
        yield url


async def _interleaved(platform: Processes, **urls: str) -> dict[str, float]:
    """Requests/s at each URL, by turns: the median of the rounds after the first."""
    token, body = platform.new_token(), json.dumps({"instances": [WINE]})
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(ROUNDS + 1):
        seconds = SECONDS if number else WARM_UP_S
        for name, url in urls.items():
            found = await load.rate(url + PREDICT, body=body, token=token, seconds=seconds)
            rates[name] += [found] if number else []
    return {name: statistics.median(found) for name, found in rates.items()}


@contextmanager
def _running(
    module: str, *arguments: str, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A process of its own that listens on a port; its URL.

    It has a session of its own, as the platform's processes have: Linux shares the CPU out among
    sessions first, so one that shares its session with the load is woken up at other moments and
    answers up to twice as many.
    """
    process = subprocess.Popen(  # noqa: S603
        on_leash(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        eventually(lambda: _answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
