"""Follows the model store: what is released becomes live, without a restart and without a gap.

The highest release that verifies is live. Each poll lists the models' names and reads the number
after the highest that was seen; a full look at the releases comes at start and every five minutes,
for what a poll cannot see. Whatever is wrong with the store, what is live goes on serving.
"""

import asyncio
import time
from dataclasses import replace
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.common.model_store import (
    ModelStore,
    Release,
    StoreError,
    TrustedKeys,
    VersionNotFound,
    VersionRefused,
)
from services.inference.models.registry import LoadedModel, Registry, load_release

FULL_LOOK_S = 300.0
STORE_DEADLINE_S = 60.0

log = structlog.get_logger()


class Watcher:
    """Keeps a registry in step with a store.

    Args:
        poll_s: seconds between looks.
    """

    def __init__(
        self,
        store: ModelStore,
        trusted: TrustedKeys,
        registry: Registry,
        *,
        poll_s: float,
        metrics: CollectorRegistry,
    ) -> None:
        self._store = store
        self._trusted = trusted
        self._registry = registry
        self._poll_s = poll_s
        self._seen: dict[str, int] = {}
        """The highest number looked at, by model."""
        self._next_full_look = 0.0
        self._live = Gauge(
            "model_live_release",
            "Number of the release being served.",
            ["model", "version"],
            registry=metrics,
        )
        self._refused = Counter(
            "model_versions_refused",
            "Released versions that were not served because something about them did not hold.",
            ["model", "reason"],
            registry=metrics,
        )
        self._failures = Counter(
            "model_store_failures", "Looks at the model store that failed.", registry=metrics
        )

    async def run(self) -> None:
        """Look, for ever; cancel to stop."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_s)

    async def check(self) -> str | None:
        """Readiness: None once the store has been looked through."""
        return None if self._registry.complete else "The model store has not been read yet."

    async def look(self) -> None:
        """One look at the store; failures are counted, logged and left for the next."""
        full = time.monotonic() >= self._next_full_look
        try:
            async with asyncio.timeout(STORE_DEADLINE_S):
                for name in await asyncio.to_thread(self._store.list_models):
                    await self._follow(name, full=full or name not in self._seen)
        except (StoreError, TimeoutError) as error:
            self._failures.inc()
            log.warning("model_store_unreadable", error=str(error))
            return
        self._registry.complete = True
        if full:
            self._next_full_look = time.monotonic() + FULL_LOOK_S

    async def _follow(self, name: str, *, full: bool) -> None:
        """Bring one model to its newest release that holds.

        Raises:
            StoreError: the store cannot be read; what was not looked at will be, next time.
        """
        if full:
            numbers = await asyncio.to_thread(self._store.list_releases, name)
            live = self._registry.live_number(name)
            for number in reversed([n for n in numbers if n > live]):
                if await self._take(name, number) == "live":
                    break
            self._seen[name] = max(numbers, default=0)
        while await self._take(name, self._seen[name] + 1) != "absent":
            self._seen[name] += 1

    async def _take(self, name: str, number: int) -> Literal["absent", "refused", "live"]:
        """Look at one release and make it live if it holds."""
        try:
            release = await asyncio.to_thread(self._store.find_release, name, number)
            if release is None:
                return "absent"
            model = await asyncio.to_thread(self._load, name, release)
        except (VersionNotFound, VersionRefused) as error:
            reason = error.reason if isinstance(error, VersionRefused) else "missing"
            self._refused.labels(name, reason).inc()
            log.error("release_refused", model=name, release=number, reason=str(error))
            return "refused"
        before = self._registry.put(model)
        if before is not None:
            self._live.remove(name, before.manifest.version)
        self._live.labels(name, release.version).set(number)
        log.info("release_live", model=name, release=number, version=release.version)
        return "live"

    def _load(self, name: str, release: Release) -> LoadedModel:
        """The version a release names; one still in memory is verified but not loaded again."""
        if resident := self._registry.resident(name, release.version):
            self._store.open_release(name, release, self._trusted)
            return replace(resident, release=release)
        return load_release(self._store, self._trusted, name, release)
