"""Pace what is tried again after failures.

A retry library repeats one call until it succeeds. The loops of this service are of another kind:
the shipper continues with other work after a failure, lease requests are only suspended for a
while, and the watcher polls anyway. They share the schedule of the pauses and nothing else.
"""

import random


class Backoff:
    """Counts failures in a row; each doubles the pause before the next attempt.

    Args:
        first_s: the longest pause after the first failure, in seconds.
        max_s: the longest pause of all.
    """

    def __init__(self, *, first_s: float, max_s: float) -> None:
        self.failures = 0
        self._first_s = first_s
        self._max_s = max_s

    def fail(self) -> float:
        """Count a failure; return how long to pause in seconds, with jitter."""
        longest = min(self._max_s, self._first_s * 2 ** min(self.failures, 16))
        self.failures += 1
        return random.uniform(longest / 2, longest)  # noqa: S311  # jitter, not a secret

    def succeed(self) -> None:
        """Start again from the shortest pause."""
        self.failures = 0

    @property
    def is_worth_logging(self) -> bool:
        """Whether to log the latest failure: the first, the fifth, and every sixtieth."""
        return self.failures in (1, 5) or self.failures % 60 == 0
