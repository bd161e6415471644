"""An account's rate limit in this process, and meters of its requests and spending."""

import math
from dataclasses import dataclass

from services.common.contracts import RateShare
from services.common.errors import ServiceError

_WINDOW_S = 5.0
_LONGEST_S = 365 * 86_400
"""The longest time in a header, whose numbers are limited to 15 digits (RFC 9651)."""


class RateLimited(ServiceError):
    """The account is over its rate limit; nothing was predicted or billed."""

    status = 429
    code = "rate_limited"
    detail = "This account is over its rate limit."

    def __init__(self, limit: RateShare, *, wait_s: float) -> None:
        fields = _limit_fields(limit, left=0, wait_s=wait_s)
        super().__init__(headers={"Retry-After": str(_whole_seconds(wait_s)), **fields})


def _limit_fields(limit: RateShare, *, left: int, wait_s: float) -> dict[str, str]:
    """Return the header fields of draft-ietf-httpapi-ratelimit-headers-10.

    `RateLimit-Policy` has the quota and the seconds in which it refills from empty, `RateLimit`
    what is left of it and the seconds until there is more. Both describe this process's share of
    the limit.
    """
    window = _whole_seconds(limit.burst / limit.per_second)
    return {
        "RateLimit-Policy": f'"default";q={int(limit.burst)};w={window}',
        "RateLimit": f'"default";r={left};t={_whole_seconds(wait_s)}',
    }


def _whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least one.

    A tiny share of a limit makes `seconds` infinite.
    """
    return max(math.ceil(min(seconds, _LONGEST_S)), 1)


@dataclass(slots=True)
class TokenBucket:
    """Allows `burst` requests at once and `per_second` in the long run."""

    limit: RateShare
    tokens: float
    at: float

    def filled(self, now: float) -> float:
        """Return how many tokens are in the bucket."""
        grown = self.tokens + max(now - self.at, 0.0) * self.limit.per_second
        return min(grown, self.limit.burst)

    def take(self, now: float) -> None:
        """Take a token for one request.

        Raises:
            RateLimited: the bucket is empty.
        """
        self.tokens = self.filled(now)
        self.at = now
        if self.tokens < 1:
            raise RateLimited(self.limit, wait_s=(1 - self.tokens) / self.limit.per_second)
        self.tokens -= 1

    def fields(self) -> dict[str, str]:
        """Return the header fields of an admitted request, as of the last one."""
        left = int(self.tokens)
        wait_s = (left + 1 - self.tokens) / self.limit.per_second
        return _limit_fields(self.limit, left=left, wait_s=wait_s)


@dataclass(slots=True)
class RateMeter:
    """Measures the recent rate of requests or money per second."""

    since: float
    count: int = 0
    per_second: float = 0.0

    def measure(self, now: float) -> float:
        """Return the rate in the last full window or in the current one, whichever is higher.

        It is measured over at least a second, so that two calls in quick succession do not see a
        rate of nothing.
        """
        elapsed = now - self.since
        current = self.count / max(elapsed, 1.0)
        if elapsed < _WINDOW_S:
            return max(self.per_second, current)
        self.since, self.count, self.per_second = now, 0, current
        return current
