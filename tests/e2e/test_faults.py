"""Processes that die in the middle: every answer is billed, and none twice."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from harness.platform import Platform, running
from harness.samples import PREDICT, WINE
from harness.waiting import eventually

KEYS = 400
CLIENTS = 4
VICTIMS = ("inference", "billing")


@pytest.mark.slow  # four restarts under load; chaos/ kills each service once
def test_every_key_is_billed_once_however_often_a_service_dies(
    new_home: Callable[[], Path],
) -> None:
    with running(new_home()) as platform:
        token = platform.new_token()
        answered: list[str] = []

        with ThreadPoolExecutor(CLIENTS + 1) as threads:
            work = [threads.submit(kill_each_twice, platform, answered)]
            for first in range(CLIENTS):
                share = range(first, KEYS, CLIENTS)
                work.append(threads.submit(send_all, platform, token, share, answered))
            for future in work:
                future.result()

        assert len(answered) == KEYS
        for victim in VICTIMS:
            assert platform.output().count(f"{victim} ended (SIGKILL)") == 2
        # It ships whatever is left before it ends, so that nothing can come later.
        last = platform.pid("inference")
        assert last is not None
        os.kill(last, signal.SIGTERM)
        eventually(lambda: platform.pid("inference") != last)
        assert platform.usage(token)["requests"] == KEYS
        assert billed_ids(platform, token) == set(answered)


def kill_each_twice(platform: Platform, answered: list[str]) -> None:
    """SIGKILL one service after the other, when 1/5, 2/5, 3/5 and 4/5 of the keys are answered."""
    for number, victim in enumerate(VICTIMS * 2, start=1):
        eventually(partial(reached, answered, number * KEYS // 5))
        platform.kill(victim)
        eventually(partial(platform.is_ready, victim))


def reached(answered: list[str], due: int) -> bool:
    return len(answered) >= due


def send_all(platform: Platform, token: str, keys: range, answered: list[str]) -> None:
    """Predict once per key; repeat each request until it is answered."""
    with platform.client("inference", token) as inference:
        for key in keys:
            answered.append(eventually(partial(send, inference, f"key-{key}")))


def send(inference: httpx.Client, key: str) -> str | None:
    """Return the id under which the answer is billed; None if there was no answer."""
    try:
        answer = inference.post(
            PREDICT, json={"instances": [WINE]}, headers={"Idempotency-Key": key}
        )
    except httpx.TransportError:
        return None
    if answer.status_code == 503:
        return None
    assert answer.status_code == 200, answer.text
    return str(answer.headers["X-Usage-Event"])


def billed_ids(platform: Platform, token: str) -> set[str]:
    with platform.client("billing", token) as billing:
        answer = billing.get("/usage/events", params={"limit": 1000})
    return {event["id"] for event in answer.json()["events"]}


def test_a_service_that_dies_is_restarted(platform: Platform) -> None:
    before = platform.pid("auth")
    assert before is not None

    os.kill(before, signal.SIGKILL)
    eventually(lambda: platform.pid("auth") not in (None, before))
    eventually(lambda: platform.is_ready("auth"))

    assert "auth ended (SIGKILL); restarting it in" in platform.output()
    assert platform.new_token()
