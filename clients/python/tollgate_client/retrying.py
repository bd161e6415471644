"""Whether to try again after an attempt, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from tollgate_client.steps import Answer, Failure

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed; everything sent has an idempotency key or
changes nothing."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0


def next_wait(
    outcome: Answer | Failure, *, attempt: int, max_retries: int, remaining_s: float, jitter: float
) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    Waits double from a quarter of a second up to eight seconds. The jitter takes away up to half,
    so that clients that failed together do not return together. `Retry-After` comes on top.

    Args:
        attempt: how many attempts failed before this one.
        remaining_s: seconds to the call's deadline; a wait beyond it is pointless.
        jitter: random, from 0 to 1.
    """
    if attempt >= max_retries:
        return None
    if isinstance(outcome, Answer) and outcome.status not in RETRIED:
        return None
    wait = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * (1 - jitter / 2)
    if isinstance(outcome, Answer):
        asked = retry_after(outcome.headers)
        if asked is not None:
            wait = asked + wait * jitter
    return wait if wait < remaining_s else None


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that `Retry-After` asks for, as a number or a date; None without it.

    Args:
        now: seconds since 1970; default the current time.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(date.timestamp() - (time.time() if now is None else now), 0.0)
