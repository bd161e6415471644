"""Waiting for a condition."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

# Shared, because each client creates an SSL context; no keep-alive, because servers come and go.
_HTTP = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
DEADLINE_S = 60.0
"""Long enough for a very busy machine."""


def eventually(
    condition: Callable[[], Any], *, within_s: float = DEADLINE_S, every_s: float = 0.05
) -> Any:
    """Poll until the condition is truthy, and return its value.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(every_s)
    return result


async def eventually_async(
    condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = DEADLINE_S
) -> None:
    """Poll until the condition is true, without blocking the event loop.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + within_s
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        await asyncio.sleep(0.02)


def is_answering(url: str) -> bool:
    """Return whether a server answers a GET, with any status."""
    try:
        _HTTP.get(url)
    except httpx.TransportError:
        return False
    return True


def is_ready(url: str) -> bool:
    """Return whether the service at a URL answers `/readyz` with 200."""
    try:
        return _HTTP.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
