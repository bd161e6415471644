"""Decide when a canary is worse than the live version.

Both versions are judged on this process's requests that name no version, since the release went
live. Requests older than the last `SAMPLE_KEPT` of a version lose weight, so that a version that
turns bad after a good day is still detected.
"""

import math
from dataclasses import dataclass, field

MIN_SAMPLE = 50
"""Minimum requests of the canary for a decision; for latency, of the live version as well."""
SAMPLE_KEPT = 2_000
"""The number of requests of a version at which all its counts are halved."""
ERROR_MARGIN = 0.02
"""How much the canary's failure rate may exceed that of the live version."""
LATENCY_FACTOR = 2.0
LATENCY_FLOOR_S = 0.005
"""A canary is too slow if its 90th percentile exceeds that of the live version both by a factor of
`LATENCY_FACTOR` and by `LATENCY_FLOOR_S` seconds."""

_QUANTILE = 0.9
_BINS_PER_DOUBLING = 4
_SHORTEST_S = 2.0**-17  # 8 µs
_BINS = 26 * _BINS_PER_DOUBLING


@dataclass(slots=True)
class VersionStats:
    """Requests and failures of one version, and the durations of its answers."""

    requests: int = 0
    failed: int = 0
    times: list[int] = field(default_factory=lambda: [0] * _BINS)
    """A histogram of durations; every four bins double the duration."""

    def add_answer(self, seconds: float) -> None:
        """Count a successful request."""
        place = int(math.log2(max(seconds, _SHORTEST_S) / _SHORTEST_S) * _BINS_PER_DOUBLING)
        self.times[min(place, _BINS - 1)] += 1
        self._count()

    def add_failure(self) -> None:
        """Count a failed request."""
        self.failed += 1
        self._count()

    @property
    def failed_share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    @property
    def slow_s(self) -> float:
        """The 90th percentile of the durations, accurate to 20 %; 0 without answers."""
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


def find_fault(canary: VersionStats, live: VersionStats) -> str | None:
    """Return why a canary is worse, with the figures; None if it is not, or it is too early."""
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
