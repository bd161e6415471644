"""Ask inference processes which release of a model they serve, and judge their answers."""

import socket
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import typer

ASK_TIMEOUT_S = 10.0
METRIC = "tollgate_model_live_release"

Served = Mapping[str, int | None]
"""By process: the number of the release it serves; 0 if it serves none, None if it did not say."""
Verdict = Literal["served", "behind", "unknown"]


def judge(served: Served, release: int) -> Verdict:
    """Whether every process serves a release or a later one.

    Returns:
        "behind" if one of them was asked and serves another one; "unknown" if not all of them
        could be asked and those that could serve it.
    """
    if any(number is not None and number < release for number in served.values()):
        return "behind"
    if not served or None in served.values():
        return "unknown"
    return "served"


def ask_urls(model: str, urls: list[str]) -> Served:
    """What the processes at these URLs serve."""
    return {url: live_release(model, scrape(url)) for url in urls}


def ask_addresses(model: str, url: str) -> Served:
    """What the processes serve whose addresses the host name of a URL has."""
    return ask_urls(model, resolve(url))


def resolve(url: str) -> list[str]:
    """The URL with each address of its host name in its place; none if the name is unknown."""
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
    """A process's metrics as text; None if it does not give them."""
    import httpx

    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/metrics", timeout=ASK_TIMEOUT_S, trust_env=False
        ).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return answer.text


def live_release(model: str, metrics: str | None) -> int | None:
    """The release of a model that metrics name; 0 if the process serves none.

    None if they are no metrics: a proxy's page, say, or an answer that broke off.
    """
    if metrics is None:
        return None
    from prometheus_client.parser import text_string_to_metric_families

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
