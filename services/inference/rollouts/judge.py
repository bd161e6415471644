"""When a canary is worse than the live version: the margins, and the figures behind them.

Both versions are judged on requests that name no version, since the release began, by this process
alone. What is older than the last `SAMPLE_KEPT` requests of a version fades, so that one which
turns bad after a good day is still found out.
"""

import math
from dataclasses import dataclass, field

MIN_SAMPLE = 50
"""Requests of the canary, and for its latency of the live version, before anything is said."""
SAMPLE_KEPT = 2_000
"""Requests of a version after which all its counts are halved."""
ERROR_MARGIN = 0.02
"""How much larger the canary's share of failures may be."""
LATENCY_FACTOR = 2.0
LATENCY_FLOOR_S = 0.005
"""Slower is a canary that takes more than `LATENCY_FACTOR` times as long, and `LATENCY_FLOOR_S`
seconds more, at the 90th percentile."""

_QUANTILE = 0.9
_BINS_PER_DOUBLING = 4
_SHORTEST_S = 2.0**-17  # 8 µs
_BINS = 26 * _BINS_PER_DOUBLING


@dataclass(slots=True)
class Sample:
    """Requests of one version: how many, how many failed, and how long the others took."""

    requests: int = 0
    failed: int = 0
    times: list[int] = field(default_factory=lambda: [0] * _BINS)
    """Answers by duration, in bins a fourth of a doubling wide."""

    def add_answer(self, seconds: float) -> None:
        """Count an answer."""
        place = int(math.log2(max(seconds, _SHORTEST_S) / _SHORTEST_S) * _BINS_PER_DOUBLING)
        self.times[min(place, _BINS - 1)] += 1
        self._count()

    def add_failure(self) -> None:
        """Count a request that the version could not answer."""
        self.failed += 1
        self._count()

    @property
    def failed_share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    @property
    def slow_s(self) -> float:
        """The 90th percentile of the durations, to a fifth; 0 without any."""
        wanted, seen = _QUANTILE * sum(self.times), 0
        for place, count in enumerate(self.times):
            seen += count
            if count and seen >= wanted:
                return float(_SHORTEST_S * 2 ** ((place + 1) / _BINS_PER_DOUBLING))
        return 0.0

    def _count(self) -> None:
        self.requests += 1
        if self.requests >= SAMPLE_KEPT:
            self.requests //= 2
            self.failed //= 2
            self.times = [count // 2 for count in self.times]


def find_fault(canary: Sample, live: Sample) -> str | None:
    """What is wrong with a canary, with the figures; None if it is no worse or it is too early."""
    if canary.requests < MIN_SAMPLE:
        return None
    if canary.failed_share > live.failed_share + ERROR_MARGIN:
        return (
            f"failed {canary.failed} of {canary.requests} requests, "
            f"the live version {live.failed} of {live.requests}"
        )
    if live.requests < MIN_SAMPLE:
        return None
    slow_s, usual_s = canary.slow_s, live.slow_s
    if slow_s > max(LATENCY_FACTOR * usual_s, usual_s + LATENCY_FLOOR_S):
        return (
            f"takes {slow_s * 1000:.1f} ms at the 90th percentile, "
            f"the live version {usual_s * 1000:.1f} ms"
        )
    return None
