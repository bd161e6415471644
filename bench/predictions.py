"""Benchmarks of predictions: against a bare app, and with and without drift and tracing."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import load
from bench.figures import Figure, Rates
from harness.otlp_collector import collecting
from harness.ports import free_port, is_listening
from harness.processes import running_process
from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses
from harness.waiting import is_ready

ROUNDS = 24
SECONDS = 1.0


async def predictions(platform: ServiceProcesses) -> list[Figure]:
    """Compare the requests/s of one-row predictions with the bare app's."""
    model = next((platform.home / "models").glob("wine/versions/*/model.onnx"))
    port = free_port()
    command = (sys.executable, "-m", "bench.bare", str(model), str(port))
    with running_process(*command, is_ready=lambda: is_listening(port)):
        rates = await _alternately(platform, platform.urls["inference"], f"http://127.0.0.1:{port}")
    return [
        Figure(
            "predictions ÷ a bare app with the same model",
            rates.ratio,
            "×",
            None,
            f"{rates} req/s, {load.CONNECTIONS} connections, by {load.tool()}",
        )
    ]


async def drift(platform: ServiceProcesses) -> list[Figure]:
    """Compare requests/s of a process that samples rows for drift with one that does not."""
    with (
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="1000") as on,
        _inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="0") as off,
    ):
        rates = await _alternately(platform, on, off)
    return [
        Figure(
            "predictions with drift sampling ÷ without",
            rates.ratio,
            "×",
            0.95,
            f"{rates} req/s of one row each",
        )
    ]


async def tracing(platform: ServiceProcesses) -> list[Figure]:
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
    return [
        Figure(
            "predictions, 1 in 100 traced ÷ untraced",
            rates.ratio,
            "×",
            0.9,
            f"{rates} req/s; {len(collector.spans):,} spans received",
        )
    ]


@contextmanager
def _inference(platform: ServiceProcesses, **environment: str) -> Iterator[str]:
    """Run another inference process of the platform; yield its URL."""
    port = free_port()
    variables = platform.environment | {"INFERENCE_PORT": str(port)} | environment
    command = (sys.executable, "-m", "services.inference")
    url = f"http://127.0.0.1:{port}"
    with running_process(*command, is_ready=lambda: is_ready(url), environment=variables):
        yield url


async def _alternately(platform: ServiceProcesses, first: str, second: str) -> Rates:
    """Load two URLs alternately, in the opposite order each round, after one warm-up round."""
    token, body = platform.new_token(), json.dumps({"instances": [WINE]})
    rates: dict[str, list[float]] = {first: [], second: []}
    for number in range(ROUNDS + 1):
        for url in (first, second) if number % 2 else (second, first):
            measured = await load.rate(url + PREDICT, body=body, token=token, seconds=SECONDS)
            rates[url] += [measured] if number else []
    return Rates(tuple(rates[first]), tuple(rates[second]))
