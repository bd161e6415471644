"""How often an account may call this process, and how often it does."""

import math
from dataclasses import dataclass

from services.common.contracts import RateShare
from services.common.errors import ServiceError

_PACE_WINDOW_S = 5.0
_LONGEST_S = 365 * 86_400
"""No header names a longer time: its fields are limited to 15 digits (RFC 9651)."""


class RateLimited(ServiceError):
    """The account is over its rate limit; nothing was predicted or billed.

    Besides `Retry-After` it carries the fields of draft-ietf-httpapi-ratelimit-headers-10: the
    policy's quota and the seconds in which it refills from empty, and what is left of it and the
    seconds until there is more. They tell of this process's share of the limit.
    """

    status = 429
    code = "rate_limited"
    detail = "This account is over its rate limit."

    def __init__(self, limit: RateShare, *, wait_s: float) -> None:
        wait = _whole_seconds(wait_s)
        window = _whole_seconds(limit.burst / limit.per_second)
        super().__init__(
            headers={
                "Retry-After": str(wait),
                "RateLimit-Policy": f'"default";q={int(limit.burst)};w={window}',
                "RateLimit": f'"default";r=0;t={wait}',
            }
        )


def _whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least one; a tiny share of a limit makes `seconds` infinite."""
    return max(math.ceil(min(seconds, _LONGEST_S)), 1)


@dataclass(slots=True)
class Bucket:
    """A token bucket: `burst` at once, `per_second` in the long run."""

    limit: RateShare
    tokens: float
    at: float

    def take(self, now: float) -> None:
        """Let one request pass.

        Raises:
            RateLimited: not yet.
        """
        grown = self.tokens + max(now - self.at, 0.0) * self.limit.per_second
        self.tokens = min(grown, self.limit.burst)
        self.at = now
        if self.tokens < 1:
            raise RateLimited(self.limit, wait_s=(1 - self.tokens) / self.limit.per_second)
        self.tokens -= 1


@dataclass(slots=True)
class Pace:
    """How much of something a second, lately."""

    since: float
    count: int = 0
    per_second: float = 0.0

    def measure(self, now: float) -> float:
        """The pace of the last window or of what has come since, whichever is quicker.

        A second is the least it is measured over, so that asking twice in a row does not see a
        pace of nothing.
        """
        elapsed = now - self.since
        present = self.count / max(elapsed, 1.0)
        if elapsed < _PACE_WINDOW_S:
            return max(self.per_second, present)
        self.since, self.count, self.per_second = now, 0, present
        return present
