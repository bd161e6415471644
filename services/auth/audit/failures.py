"""Failed attempts, kept in memory until they are stored in one go.

Anyone can cause failures, in any number, so they must neither slow requests down nor fill the
database. A failure therefore costs its request no statement; the process stores what it has noted
every second, and never more than its allowance. What exceeds it is only counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

BURST = 1000
"""Failures that a process may record at once."""
RESERVE = BURST // 2
"""What other services cannot use of it, so that a flood there hides no failed sign-in here."""
PER_SECOND = 1.0
"""Failures that it may record continuously: at most 86,400 entries, about 25 MB, per day."""
MAX_TARGET_CHARS = 128
MAX_ADDRESS_CHARS = 64


def clip(text: str | None, *, max_chars: int) -> str | None:
    """Return a text as its column can store it: in ASCII, and not too long.

    A target may be what someone typed in a path.
    """
    if text is None:
        return None
    return text[:max_chars].encode("ascii", "replace").decode()


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt; the fields are those of an audit entry."""

    time: datetime
    action: str
    actor: str | None
    target: str | None
    address: str | None


class FailureLog:
    """Owns the failures that this process has not stored yet.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget everything, as after a start."""
        self._noted: list[Failure] = []
        self._omitted = 0
        self._allowance = float(BURST)
        self._refilled_at = self._clock()

    def note(
        self,
        action: str,
        *,
        address: str | None,
        actor: str | None = None,
        target: str | None = None,
        time: datetime | None = None,
        reserve: int = 0,
    ) -> None:
        """Note a failure, or only count it if the allowance is used up.

        Args:
            time: when it happened; default now.
            reserve: the allowance that must be left for other failures.
        """
        now = self._clock()
        refill = (now - self._refilled_at) * PER_SECOND
        self._allowance = min(BURST, self._allowance + refill)
        self._refilled_at = now
        if self._allowance < 1 + reserve:
            self._omitted += 1
            return
        self._allowance -= 1
        self._noted.append(
            Failure(
                time or datetime.now(UTC),
                action,
                actor,
                clip(target, max_chars=MAX_TARGET_CHARS),
                clip(address, max_chars=MAX_ADDRESS_CHARS),
            )
        )

    def omit(self, count: int) -> None:
        """Count failures that another service could only count."""
        self._omitted += count

    def take(self) -> list[Failure]:
        """Return what was noted since the last call, with an entry for what was only counted."""
        noted, self._noted = self._noted, []
        if self._omitted:
            count, self._omitted = self._omitted, 0
            noted.append(Failure(datetime.now(UTC), "failures_omitted", None, str(count), None))
        return noted

    def put_back(self, failures: list[Failure]) -> None:
        """Keep failures that could not be stored for the next attempt."""
        self._noted = (failures + self._noted)[-2 * BURST :]
