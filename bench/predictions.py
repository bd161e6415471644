"""Benchmarks of predictions: against a bare app, and with and without drift and tracing."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from bench import load
from bench.figures import Figure, Rates
from cli.die_with_parent import die_with_parent
from harness.otlp_collector import collecting
from harness.platform import PREDICT, ROOT, WINE, eventually
from harness.ports import free_port
from harness.processes import Processes

ROUNDS = 24
SECONDS = 1.0


async def predictions(platform: Processes) -> Figure:
    """Compare requests/s of one row with the bare app."""
    model = next((platform.home / "models").glob("wine/versions/*/model.onnx"))
    port = free_port()
    with _running("bench.bare", str(model), str(port), port=port) as bare:
        rates = await _alternately(platform, platform.urls["inference"], bare)
    return Figure(
        "predictions ÷ a bare app with the same model",
        rates.ratio,
        "×",
        None,
        f"{rates} req/s, {load.CONNECTIONS} connections, by {load.tool()}",
    )


async def drift(platform: Processes) -> Figure:
    """Compare requests/s of a process that samples rows for drift with one that does not."""
    with (
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="1000") as on,
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="0") as off,
    ):
        rates = await _alternately(platform, on, off)
    return Figure(
        "predictions with drift sampling ÷ without",
        rates.ratio,
        "×",
        0.95,
        f"{rates} req/s of one row each",
    )


async def tracing(platform: Processes) -> Figure:
    """Compare requests/s of a process that traces one in a hundred with one that does not."""
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
        rates = await _alternately(platform, on, off)
    return Figure(
        "predictions, 1 in 100 traced ÷ untraced",
        rates.ratio,
        "×",
        0.9,
        f"{rates} req/s; {len(collector.spans):,} spans received",
    )


@contextmanager
def _inference(platform: Processes, **environment: str) -> Iterator[str]:
    """Run another inference process of the platform; yield its URL."""
    port = free_port()
    own = platform.environment | {"INFERENCE_PORT": str(port)} | environment
    with _running("services.inference", port=port, environment=own) as url:
        eventually(lambda: httpx.get(url + "/readyz").is_success)
        yield url


async def _alternately(platform: Processes, first: str, second: str) -> Rates:
    """Load two URLs alternately, in the opposite order each round, after one warm-up round."""
    token, body = platform.new_token(), json.dumps({"instances": [WINE]})
    found: dict[str, list[float]] = {first: [], second: []}
    for number in range(ROUNDS + 1):
        for url in (first, second) if number % 2 else (second, first):
            rate = await load.rate(url + PREDICT, body=body, token=token, seconds=SECONDS)
            found[url] += [rate] if number else []
    return Rates(tuple(found[first]), tuple(found[second]))


@contextmanager
def _running(
    module: str, *arguments: str, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a process that listens on a port; yield its URL.

    It has its own session, like the platform's processes. Linux divides the CPU among sessions
    first, so a process that shares its session with the load would be scheduled differently and
    serve up to twice as many requests.
    """
    process = subprocess.Popen(  # noqa: S603
        die_with_parent(sys.executable, "-m", module, *arguments),
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
