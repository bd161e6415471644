"""The open loop: what it reports."""

from bench.open_loop import summary


def test_responses_after_the_end_are_counted_but_not_in_time() -> None:
    found = summary([(0.5, 0.1), (1.0, 0.2), (1.5, 0.9)], seconds=1.0)

    assert found == {"responses": 3, "in_time": 2, "p99_ms": 900.0}
