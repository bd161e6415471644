"""Follows the model store: what is released becomes live, without a restart and without a gap.

The highest release that verifies is live. Each poll lists the models' names and reads the number
after the highest that was seen; a full look at the releases comes at start, every five minutes and
when other keys are trusted, for what a poll cannot see. Whatever is wrong with the store, what is
live goes on serving; if it is away at the start, what was live when it was last seen is served from
the local disk.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import structlog

from services.common.model_store import (
    ModelStore,
    Release,
    StoreError,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
)
from services.common.model_verify import stray_release
from services.inference.engine.blocking import Blocking
from services.inference.models.cache import ModelCache
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.registry import Registry

FULL_LOOK_S = 300.0
CALL_DEADLINE_S = 10.0
CALLS_AT_ONCE = 4
LONGEST_PAUSE_S = 15.0
NOT_WORKING = frozenset({"warm_up", "runtime", "columns"})
"""Refusals that are about the version; others may be about this process, such as its keys."""

log = structlog.get_logger()


class Watcher:
    """Keeps a registry in step with a store.

    Args:
        poll_s: seconds between looks.
        canary_refused: told of a release whose canary was loaded but does not answer as it should.
        call_deadline_s: seconds that one call to the store may take.
    """

    def __init__(
        self,
        store: ModelStore,
        cache: ModelCache,
        loader: Loader,
        registry: Registry,
        *,
        poll_s: float,
        canary_refused: Callable[[str, Release, str], None],
        call_deadline_s: float = CALL_DEADLINE_S,
        metrics: ModelMetrics,
    ) -> None:
        self._store = store
        self._cache = cache
        self._loader = loader
        self._registry = registry
        self._poll_s = poll_s
        self._canary_refused = canary_refused
        self._metrics = metrics
        self._calls = Blocking(at_once=CALLS_AT_ONCE, deadline_s=call_deadline_s)
        self._seen: dict[str, int] = {}
        """The highest number looked at, by model."""
        self._strays: set[tuple[str, int]] = set()
        """Release records far beyond the sequence that were reported, by model and number."""
        self._next_full_look = 0.0
        self._keys: frozenset[bytes] | None = None
        self._began_from_cache = False

    async def run(self) -> None:
        """Look, for ever; cancel to stop."""
        failures = 0
        while True:
            failures = 0 if await self.look() else failures + 1
            if failures and not self._registry.complete and not self._began_from_cache:
                with suppress(StoreError):
                    await self.begin_from_cache()
            await asyncio.sleep(pause_s(self._poll_s, failures))

    async def check(self) -> str | None:
        """Readiness: None once the store has been looked through, or models came from the disk."""
        if self._registry.complete or (self._began_from_cache and self._registry.names()):
            return None
        return "The model store has not been read yet."

    async def look(self) -> bool:
        """One look at the store; a failure is counted, logged and left for the next (False)."""
        try:
            keys_changed = await self._follow_keys()
            full = keys_changed or time.monotonic() >= self._next_full_look
            names = await self._calls(self._store.list_models)
            self._registry.known = frozenset(names)
            # All are followed, whatever befalls one of them.
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
            log.warning("model_store_unreadable", error=str(error))
            return False
        self._metrics.store_reachable.set(1)
        self._registry.complete = True
        if full:
            self._next_full_look = time.monotonic() + FULL_LOOK_S
        return True

    async def _follow_keys(self) -> bool:
        """Whether other keys are trusted than at the last look; what they signed is judged anew."""
        keys = await asyncio.to_thread(self._cache.trusted_keys)
        before = self._keys
        if keys == before:
            return False
        if before is not None:
            await self._loader.drop_untrusted()
        self._keys = keys
        return before is not None

    async def begin_from_cache(self) -> None:
        """Serve what was live when the store was last seen, verified like anything else."""
        self._began_from_cache = True
        releases = await self._calls(self._cache.live_when_last_seen)
        await asyncio.gather(
            *(self._make_live(name, release) for name, release in releases.items()),
            return_exceptions=True,  # one that needs the store must not stop the others
        )
        log.warning("model_store_away_at_start", served_from_disk=self._registry.names())

    async def _follow(self, name: str, *, full: bool) -> None:
        """Bring one model to its newest release that holds.

        Raises:
            StoreError: the store cannot be read; what was not looked at will be, next time.
        """
        if full:
            numbers, strays = await self._calls(self._store.split_releases, name)
            self._report_strays(name, strays)
            # What is served is looked at again if a canary or shadow of it could not be loaded.
            known = self._registry.live_number(name) - (not self._registry.is_whole(name))
            for number in reversed([n for n in numbers if n > known]):
                if await self._take(name, number) == "live":
                    break
            self._seen[name] = max(numbers, default=0)
        while await self._take(name, self._seen[name] + 1) != "absent":
            self._seen[name] += 1

    async def _take(self, name: str, number: int) -> Literal["absent", "refused", "live"]:
        """Look at one release and make it live if it holds."""
        try:
            record = await self._calls(self._store.find_record, name, number)
        except VersionRefused as error:
            return self._refuse(name, number, error)
        if record is None:
            return "absent"
        if isinstance(record, Withdrawal):
            return await self._withdraw(name, record)
        return await self._make_live(name, record)

    async def _withdraw(self, name: str, record: Withdrawal) -> Literal["live"]:
        """Serve no version of a model; the record is in force as a release would be."""
        self._registry.withdraw(name, record.number)
        await self._calls(self._cache.withdraw, name, record)
        log.info("release_withdrawn", model=name, release=record.number, reason=record.reason)
        return "live"

    def _report_strays(self, name: str, numbers: list[int]) -> None:
        """Count and log records that are far beyond the sequence, each once."""
        for number in numbers:
            if (name, number) not in self._strays:
                self._strays.add((name, number))
                told = stray_release(name, number)
                self._refuse(name, number, VersionRefused(told, reason="sequence"))

    async def _make_live(self, name: str, release: Release) -> Literal["refused", "live"]:
        try:
            refusal = await self._loader.go_live(name, release)
        except (VersionNotFound, VersionRefused) as error:
            return self._refuse(name, release.number, error)
        log.info("release_live", model=name, release=release.number, version=release.version)
        if refusal is not None and refusal.reason in NOT_WORKING:
            self._canary_refused(name, release, str(refusal))
        return "live"

    def _refuse(
        self, name: str, number: int, error: VersionNotFound | VersionRefused
    ) -> Literal["refused"]:
        self._metrics.count_refusal(name, error)
        log.error("release_refused", model=name, release=number, reason=str(error))
        return "refused"


def pause_s(poll_s: float, failures: int) -> float:
    """Seconds until the next look: longer after each failure, and never in step with others."""
    if not failures:
        return poll_s
    longest = max(poll_s, min(LONGEST_PAUSE_S, poll_s * 2 ** min(failures, 10)))
    return random.uniform(longest / 2, longest)  # noqa: S311  # to spread, not to hide
