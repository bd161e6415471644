"""Watch the model store and activate new releases without a restart or downtime.

The highest release that verifies is live. Each poll lists the models and reads the release after
the highest one seen. A full scan of the releases, at start, every five minutes and when the trusted
keys change, finds what a poll misses. Live versions keep serving whatever happens to the store. If
it is unavailable at start, the last known live releases are served from the local disk. Each poll
also reads the next deprecation.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import structlog

from registry.records import Release, StoreError, VersionNotFound, VersionRefused, Withdrawal
from registry.store import ModelStore
from registry.verify import stray_release
from services.inference.backoff import Backoff
from services.inference.models.cache import ModelCache
from services.inference.models.deprecations import DeprecationReader
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.table import ModelTable
from services.inference.thread_limiter import ThreadLimiter

FULL_SCAN_S = 300.0
CALL_DEADLINE_S = 10.0
CALLS_AT_ONCE = 4
MAX_PAUSE_S = 15.0
NOT_WORKING = frozenset({"warm_up", "runtime", "columns"})
"""Reasons that concern the version itself; others may concern this process, such as its keys."""

log = structlog.get_logger()


class Watcher:
    """Keeps the model table in sync with the model store.

    Args:
        poll_s: seconds between polls.
        canary_refused: called for a release whose canary is faulty, with the model, the release and
            the reason.
        call_deadline_s: timeout of a call to the store, in seconds.
    """

    def __init__(
        self,
        store: ModelStore,
        cache: ModelCache,
        loader: Loader,
        table: ModelTable,
        *,
        poll_s: float,
        canary_refused: Callable[[str, Release, str], None],
        call_deadline_s: float = CALL_DEADLINE_S,
        metrics: ModelMetrics,
    ) -> None:
        self._store = store
        self._cache = cache
        self._loader = loader
        self._table = table
        self._poll_s = poll_s
        self._canary_refused = canary_refused
        self._metrics = metrics
        self._threads = ThreadLimiter(at_once=CALLS_AT_ONCE, deadline_s=call_deadline_s)
        self._deprecations = DeprecationReader(
            store, cache, self._threads, metrics, report=table.set_deprecations
        )
        self._seen: dict[str, int] = {}
        """The highest release number read, by model."""
        self._strays: set[tuple[str, int]] = set()
        """Reported release records far beyond the sequence, by model and number."""
        self._next_full_scan = 0.0
        self._keys: frozenset[bytes] | None = None
        self._started_from_cache = False

    async def run(self) -> None:
        """Poll the store; cancel to stop."""
        backoff = Backoff(first_s=2 * self._poll_s, max_s=max(self._poll_s, MAX_PAUSE_S))
        while True:
            if await self.poll():
                backoff.succeed()
                pause_s = self._poll_s
            else:
                pause_s = backoff.fail()
                if not self._table.complete and not self._started_from_cache:
                    with suppress(StoreError):
                        await self.start_from_cache()
            await asyncio.sleep(pause_s)

    async def check(self) -> str | None:
        """Return None once the store or the cache has been read, otherwise what is missing."""
        if self._table.complete or (self._started_from_cache and self._table.names()):
            return None
        return "The model store has not been read yet."

    async def poll(self) -> bool:
        """Read the store once; return False on failure, which is counted and logged."""
        try:
            keys_changed = await self._follow_keys()
            full = keys_changed or time.monotonic() >= self._next_full_scan
            names = await self._threads.run(self._store.list_models)
            self._table.known = frozenset(names)
            # Update every model, even if one fails.
            outcomes = await asyncio.gather(
                *(self._follow(name, full=full or name not in self._seen) for name in names),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
        except StoreError as error:
            self._metrics.store_failures.inc()
            self._metrics.store_reachable.set(0)
            log.warning("model_store_read_failed", error=str(error))
            return False
        self._metrics.store_reachable.set(1)
        self._table.complete = True
        if full:
            self._next_full_scan = time.monotonic() + FULL_SCAN_S
        return True

    async def _follow_keys(self) -> bool:
        """Return whether the trusted keys changed; if so, drop versions they no longer cover."""
        keys = await asyncio.to_thread(self._cache.trusted_keys)
        before = self._keys
        if keys == before:
            return False
        if before is not None:
            await self._loader.drop_untrusted()
        self._keys = keys
        return before is not None

    async def start_from_cache(self) -> None:
        """Serve the last known live releases from the cache, verified as usual."""
        self._started_from_cache = True
        releases = await self._threads.run(self._cache.live_when_last_seen)
        for name in releases:
            kept = await self._threads.run(self._cache.deprecations_when_last_seen, name)
            self._table.set_deprecations(name, kept)
        await asyncio.gather(
            *(self._make_live(name, release) for name, release in releases.items()),
            return_exceptions=True,  # one that needs the store must not block the others
        )
        log.warning("cached_releases_activated", models=self._table.names())

    async def _follow(self, name: str, *, full: bool) -> None:
        """Update a model to its newest valid release.

        Raises:
            StoreError: the store cannot be read; the next poll continues from here.
        """
        if full:
            numbers, strays = await self._threads.run(self._store.split_releases, name)
            self._report_strays(name, strays)
            # Read the live release again if its canary or shadow could not be loaded.
            known = self._table.live_number(name) - (not self._table.is_whole(name))
            for number in reversed([n for n in numbers if n > known]):
                if await self._take(name, number) == "live":
                    break
            self._seen[name] = max(numbers, default=0)
        while await self._take(name, self._seen[name] + 1) != "absent":
            self._seen[name] += 1
        await self._deprecations.read(name, full=full)

    async def _take(self, name: str, number: int) -> Literal["absent", "refused", "live"]:
        """Read one release, and activate it if it is valid."""
        try:
            record = await self._threads.run(self._store.find_record, name, number)
        except VersionRefused as error:
            return self._refuse(name, number, error)
        if record is None:
            return "absent"
        if isinstance(record, Withdrawal):
            return await self._withdraw(name, record)
        return await self._make_live(name, record)

    async def _withdraw(self, name: str, record: Withdrawal) -> Literal["live"]:
        """Deactivate a model; the withdrawal is in force like a release."""
        self._table.withdraw(name, record.number)
        await self._threads.run(self._cache.withdraw, name, record)
        log.info("release_withdrawn", model=name, release=record.number, reason=record.reason)
        return "live"

    def _report_strays(self, name: str, numbers: list[int]) -> None:
        """Count and log each record far beyond the sequence once."""
        for number in numbers:
            if (name, number) not in self._strays:
                self._strays.add((name, number))
                message = stray_release(name, number)
                self._refuse(name, number, VersionRefused(message, reason="sequence"))

    async def _make_live(self, name: str, release: Release) -> Literal["refused", "live"]:
        try:
            refusal = await self._loader.go_live(name, release)
        except (VersionNotFound, VersionRefused) as error:
            return self._refuse(name, release.number, error)
        log.info("release_activated", model=name, release=release.number, version=release.version)
        if refusal is not None and refusal.reason in NOT_WORKING:
            self._canary_refused(name, release, str(refusal))
        return "live"

    def _refuse(
        self, name: str, number: int, error: VersionNotFound | VersionRefused
    ) -> Literal["refused"]:
        self._metrics.count_refusal(name, error)
        log.error("release_refused", model=name, release=number, reason=str(error))
        return "refused"
