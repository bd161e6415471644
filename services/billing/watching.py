"""Keep verifying the books, with the result as metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import ServiceError

log = structlog.get_logger()

RETRY_S = 60.0
"""Seconds after which a verification that failed is repeated, if the interval is longer."""
MAX_LOGGED = 100
"""Differences that are logged one by one."""


class BooksWatch:
    """Verifies at an interval, and keeps the last result."""

    def __init__(
        self,
        verify: Callable[[], Awaitable[list[str]]],
        *,
        every_s: float,
        registry: CollectorRegistry,
    ) -> None:
        """Create the metrics.

        Args:
            verify: returns a sentence for each difference in the books.
            every_s: seconds from the end of one verification to the start of the next.
        """
        self._verify = verify
        self._every_s = every_s
        self._differences = Gauge(
            "tollgate_billing_differences",
            "Differences that the latest verification of the books found.",
            registry=registry,
        )
        self._verified_at = Gauge(
            "tollgate_billing_verified_timestamp_seconds",
            "When the latest verification of the books ended, as a Unix time; 0 before the first.",
            registry=registry,
        )
        self._seconds = Gauge(
            "tollgate_billing_verification_seconds",
            "How long the latest verification of the books took.",
            registry=registry,
        )
        self._failures = Counter(
            "tollgate_billing_verification_failures",
            "Verifications of the books that failed: the database or an archive was unavailable.",
            registry=registry,
        )

    async def run(self) -> None:
        """Verify at once and then at the interval, forever."""
        while True:
            verified = await self.verify_once()
            await asyncio.sleep(self._every_s if verified else min(self._every_s, RETRY_S))

    async def verify_once(self) -> bool:
        """Verify, and log and measure what is found; return whether that was possible.

        A failure keeps the result before.
        """
        started = time.monotonic()
        try:
            differences = await self._verify()
        except (ServiceError, SQLAlchemyError, OSError) as error:
            self._failures.inc()
            cause = getattr(error, "orig", None) or error
            log.warning("books_not_verified", error=str(cause))
            return False
        seconds = time.monotonic() - started
        self._differences.set(len(differences))
        self._verified_at.set_to_current_time()
        self._seconds.set(seconds)
        for difference in differences[:MAX_LOGGED]:
            log.error("books_differ", difference=difference)
        log.info("books_verified", differences=len(differences), seconds=round(seconds, 1))
        return True
