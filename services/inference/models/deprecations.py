"""Follow the deprecations in the model store, for the headers of the versions' answers."""

from collections.abc import Callable
from datetime import UTC
from email.utils import format_datetime

import structlog

from registry.deprecations import (
    Deprecation,
    Deprecations,
    decide_deprecations,
    find_deprecation_record,
)
from registry.records import VersionRefused
from registry.store import ModelStore
from services.inference.models.cache import ModelCache
from services.inference.models.metrics import ModelMetrics
from services.inference.thread_limiter import ThreadLimiter

log = structlog.get_logger()


class DeprecationReader:
    """Reads the deprecation records of each model as they appear.

    Args:
        cache: keeps the records, for a later start without the store.
        threads: runs the calls to the store and the cache.
        report: takes a model and its deprecations in force, whenever they have changed.
    """

    def __init__(
        self,
        store: ModelStore,
        cache: ModelCache,
        threads: ThreadLimiter,
        metrics: ModelMetrics,
        *,
        report: Callable[[str, Deprecations], None],
    ) -> None:
        self._store = store
        self._cache = cache
        self._threads = threads
        self._metrics = metrics
        self._report = report
        self._seen: dict[str, int] = {}
        """The highest number read, by model."""
        self._in_force: dict[str, Deprecations] = {}

    async def read(self, name: str, *, full: bool) -> None:
        """Read the records of a model after the last one read.

        Args:
            full: list them, to find those behind a gap; otherwise read one at a time.

        Raises:
            StoreError: the store cannot be read right now.
        """
        if full or name not in self._seen:
            listed = await self._threads.run(self._store.list_numbers, name, "deprecations")
            for number in listed:
                if number > self._seen.get(name, 0):
                    await self._take(name, number)
        self._seen.setdefault(name, 0)
        while await self._take(name, self._seen[name] + 1):
            pass

    async def _take(self, name: str, number: int) -> bool:
        """Read one record, and report what it changes; return False if it is missing."""
        try:
            record = await self._threads.run(find_deprecation_record, self._store, name, number)
        except VersionRefused as error:
            self._metrics.count_refusal(name, error)
            log.error("deprecation_refused", model=name, number=number, reason=str(error))
        else:
            if record is None:
                return False
            self._in_force[name] = decide_deprecations([record], self._in_force.get(name))
            self._report(name, self._in_force[name])
            await self._threads.run(self._cache.keep_deprecation, name, record)
            log.info("deprecation_read", model=name, version=record.version, action=record.action)
        self._seen[name] = number
        return True


def deprecation_headers(deprecation: Deprecation | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), for a deprecated version."""
    if deprecation is None:
        return ()
    since = b"@%d" % int(deprecation.since.timestamp())
    sunset = format_datetime(deprecation.sunset.astimezone(UTC), usegmt=True).encode()
    return ((b"deprecation", since), (b"sunset", sunset))
