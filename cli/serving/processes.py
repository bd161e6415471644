"""Query inference processes for the release of a model that they serve."""

import socket
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families

REQUEST_TIMEOUT_S = 10.0
METRIC = "tollgate_model_live_release"

Served = Mapping[str, int | None]
"""The number of the release that each process serves; 0 for no release, None if unknown."""
Verdict = Literal["served", "behind", "unknown"]


def judge(served: Served, release: int) -> Verdict:
    """Judge whether every process serves a release or a later one.

    Returns:
        "behind" if a process serves an older release; otherwise "unknown" if there are no
        processes or one could not be queried.
    """
    if any(number is not None and number < release for number in served.values()):
        return "behind"
    if not served or None in served.values():
        return "unknown"
    return "served"


def ask_urls(model: str, urls: list[str]) -> Served:
    """Return the releases that the processes at some URLs serve."""
    return {url: live_release(model, scrape(url)) for url in urls}


def ask_addresses(model: str, url: str) -> Served:
    """Return the releases that the processes behind a URL's host name serve."""
    return ask_urls(model, resolve(url))


def resolve(url: str) -> list[str]:
    """Return a URL for each address of the host name; none if it cannot be resolved."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        typer.echo(f"{host}: {error.strerror or type(error).__name__}", err=True)
        return []
    addresses = sorted({str(address[4][0]) for address in found})
    return [
        f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        for address in addresses
    ]


def scrape(url: str) -> str | None:
    """Return a process's metrics as text; None if they cannot be fetched."""
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/metrics", timeout=REQUEST_TIMEOUT_S, trust_env=False
        ).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return response.text


def live_release(model: str, metrics: str | None) -> int | None:
    """Return the release of a model from a process's metrics; 0 if it serves none.

    None if the text is not valid metrics, such as a proxy's page or a truncated response.
    """
    if metrics is None:
        return None
    try:
        samples = [
            int(sample.value)
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == METRIC and sample.labels.get("model") == model
        ]
    except (ValueError, OverflowError):
        return None
    return max(samples, default=0)
