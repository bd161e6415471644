"""The rate limit of predictions that are not billed, because they are made with a test key."""

import time
from collections.abc import Callable

from services.common.contracts import RateShare
from services.inference.metering.leases.rates import TokenBucket

UNBILLED_LIMIT = RateShare(per_second=10, burst=10)
"""Of all test keys of an account together, in each process: with more keys, more would be free."""
MAX_ACCOUNTS = 10_000


class UnbilledRates:
    """Counts the requests of each account's test keys in this process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def admit(self, account: str) -> None:
        """Count a request.

        Raises:
            RateLimited: the account's test keys are over their limit.
        """
        now = self._clock()
        bucket = self._buckets.pop(account, None)
        if bucket is None:
            bucket = TokenBucket(UNBILLED_LIMIT, tokens=UNBILLED_LIMIT.burst, at=now)
        self._buckets[account] = bucket  # now the most recent one
        if len(self._buckets) > MAX_ACCOUNTS:
            del self._buckets[next(iter(self._buckets))]
        bucket.take(now)
