"""What both clients pass to httpx, and what they make of its failures."""

from __future__ import annotations

import httpx

from tollgate_client.steps import Answer, Failure, Send

VERSION = "0.1.0"
HEADERS = {"user-agent": f"tollgate-client/{VERSION}", "accept": "application/json"}


def check_url(base_url: str) -> str:
    """Return an address without a trailing slash.

    Raises:
        ValueError: it is not an http or https URL.
    """
    try:
        url = httpx.URL(base_url)
        valid = url.scheme in ("http", "https") and url.host and not (url.query or url.fragment)
    except (httpx.InvalidURL, TypeError):
        valid = False
    if not valid:
        raise ValueError("'base_url' must be an http or https URL, such as http://127.0.0.1:8002.")
    return str(base_url).rstrip("/")


def authorization(api_key: str) -> httpx.Headers:
    """Return the header with the API key; its repr does not show it.

    Raises:
        ValueError: the API key cannot be one; the message does not repeat it.
    """
    if not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("'api_key' must be an API key, such as tg_live_….")
    return httpx.Headers({"authorization": f"Bearer {api_key}"})


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    """Return an answer that has arrived completely."""
    return Answer(response.status_code, dict(response.headers.items()), body)


def failure_of(error: httpx.RequestError, send: Send) -> Failure:
    """Return why there was no answer, without the request, whose headers contain the API key."""
    if isinstance(error, httpx.TimeoutException):
        return too_late(send)
    what = "cannot connect" if isinstance(error, httpx.ConnectError) else "the connection broke"
    host = httpx.URL(send.url).netloc.decode()
    detail = f" ({error})" if str(error) else ""
    return Failure(f"{what} to {host}{detail}")


def too_late(send: Send) -> Failure:
    """Return the failure of a request whose time is over."""
    return Failure(f"{httpx.URL(send.url).netloc.decode()} did not answer in time")
