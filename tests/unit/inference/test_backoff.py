"""Pauses grow with failures in a row, up to a limit."""

import pytest

from services.inference.backoff import Backoff


@pytest.mark.parametrize("failures", [1, 2, 5, 1_000])
def test_the_pause_stays_within_its_limits_however_long_the_outage(failures: int) -> None:
    backoff = Backoff(first_s=2.0, max_s=15.0)

    pauses = [backoff.fail() for _ in range(failures)]

    assert 1.0 <= min(pauses) <= max(pauses) <= 15.0
    assert pauses[-1] >= min(2.0**failures, 15.0) / 2


def test_a_success_starts_again_from_the_shortest_pause() -> None:
    backoff = Backoff(first_s=1.0, max_s=60.0)
    for _ in range(6):
        backoff.fail()

    backoff.succeed()

    assert backoff.fail() <= 1.0


def test_a_long_outage_is_logged_now_and_then() -> None:
    backoff = Backoff(first_s=1.0, max_s=1.0)
    logged = []

    for number in range(1, 130):
        backoff.fail()
        if backoff.is_worth_logging:
            logged.append(number)

    assert logged == [1, 5, 60, 120]
