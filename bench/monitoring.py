"""Benchmarks of what inference does beside predictions: drift sampling and tracing."""

from bench import samples
from bench.comparison import Compared, Side, compare
from bench.figures import Figure
from bench.samples import json_request
from bench.servers import RunningServer, inference
from bench.timing import Timing
from harness.otlp_collector import collecting
from harness.services import ServiceProcesses

CONNECTIONS = 16


def drift(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare requests/s of a process that samples rows for drift with one that does not."""
    with (
        inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="1000") as on,
        inference(platform, INFERENCE_DRIFT_ROWS_PER_SECOND="0") as off,
    ):
        rates = _alternately(platform, on, off, timing).rates
    detail = f"{rates} req/s of one row each"
    return [Figure("one row, drift sampling ÷ without", rates.ratio, "×", detail, at_least=0.95)]


def tracing(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare requests/s of a process that traces one in a hundred with one that does not."""
    with (
        collecting() as collector,
        inference(
            platform,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_TRACES_SAMPLER="parentbased_traceidratio",
            OTEL_TRACES_SAMPLER_ARG="0.01",
        ) as on,
        inference(platform) as off,
    ):
        rates = _alternately(platform, on, off, timing).rates
    detail = f"{rates} req/s; {len(collector.spans):,} spans received"
    return [Figure("one row, 1 in 100 traced ÷ untraced", rates.ratio, "×", detail, at_least=0.9)]


def _alternately(
    platform: ServiceProcesses, first: RunningServer, second: RunningServer, timing: Timing
) -> Compared:
    token, model = platform.new_token(), samples.wine(platform)
    sides = [
        Side(server, [json_request(server.url, model.name, model.rows, token=token)])
        for server in (first, second)
    ]
    return compare(*sides, connections=CONNECTIONS, timing=timing)
