"""Benchmark of a minute at full load: whether billing keeps up, and what holds the event loop."""

from bench import load, samples
from bench.figures import Figure
from bench.quantiles import quantile
from bench.samples import json_request
from bench.servers import Samples, inference, total
from bench.timing import Timing
from harness.accounts import new_account
from harness.services import ServiceProcesses

CONNECTIONS = 64
BACKLOG_S = 2.0
LAG = "tollgate_inference_event_loop_lag_seconds_bucket"


def sustained(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Measure the rate, the backlog at the end, and whether all that was served is billed."""
    account, model = new_account(platform), samples.wine(platform)
    with inference(platform) as server:
        request = json_request(server.url, model.name, model.rows, token=account.token)
        peak = load.measure(server.url, [request], connections=CONNECTIONS, seconds=timing.seconds)
        server.await_shipped()
        timing.say(f"full load for {timing.sustained_s:g} s; the peak is {peak.rate:,.0f} req/s")
        measured = load.measure(
            server.url, [request], connections=CONNECTIONS, seconds=timing.sustained_s
        )
        at_the_end = server.scrape()
        server.await_shipped()
        served = total(server.scrape(), "tollgate_inference_predictions_total")
    billed = platform.usage(account.token)["requests"]
    backlog, lag_s = _unshipped(at_the_end), quantile(at_the_end.get(LAG, []), 0.999)
    timing.say(f"{measured.rate:,.0f} req/s; {backlog:,} events unshipped at the end")
    return [
        Figure(
            f"sustained for {timing.sustained_s:g} s ÷ peak of {timing.seconds:g} s",
            measured.rate / peak.rate,
            "×",
            f"{measured.rate:,.0f} and {peak.rate:,.0f} req/s, p99 {measured.p99_ms:.1f} ms",
        ),
        Figure(
            "backlog at the end of full load, in traffic",
            backlog / measured.rate,
            "s",
            f"{backlog:,} events that billing did not have yet",
            at_most=BACKLOG_S,
        ),
        Figure(
            "difference between requests served and billed",
            abs(served - billed),
            "requests",
            f"{served:,.0f} served, {billed:,} billed",
            at_most=0,
        ),
        Figure(
            "event-loop lag at full load, p99.9",
            None if lag_s is None else lag_s * 1000,
            "ms",
            "the upper bound of its bucket" if lag_s is not None else f"no metric {LAG}",
        ),
    ]


def _unshipped(samples: Samples) -> int:
    """Return the number of journalled events that billing did not have."""
    outcomes = ("shipped", "duplicates", "conflicts", "rejected")
    answered = total(samples, *(f"tollgate_usage_events_{outcome}_total" for outcome in outcomes))
    return round(total(samples, "tollgate_usage_journal_last_sequence") - answered)
