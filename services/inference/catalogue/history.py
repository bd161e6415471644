"""Which versions of a model have been live, and since when."""

import asyncio
import time
from datetime import datetime
from typing import NamedTuple

import structlog

from registry.records import Release, StoreError, VersionNotFound, VersionRefused
from registry.store import ModelStore
from services.inference.models.cache import ModelCache
from services.inference.models.table import LiveRelease
from services.inference.thread_limiter import ThreadLimiter

MAX_VERSIONS = 20
MAX_RECORDS = 200
"""How far back the releases are read."""
CALL_DEADLINE_S = 10.0
RETRY_S = 10.0

log = structlog.get_logger()


class ReleasedVersion(NamedTuple):
    """A version, and when it first went live."""

    version: str
    released_at: datetime


class ReleaseHistory:
    """Reads the releases of a model once after each change of its live release."""

    def __init__(self, store: ModelStore, cache: ModelCache) -> None:
        self._store = store
        self._cache = cache
        self._threads = ThreadLimiter(at_once=2, deadline_s=CALL_DEADLINE_S)
        self._reading = asyncio.Lock()
        self._known: dict[str, tuple[int, tuple[ReleasedVersion, ...]]] = {}
        """The live release's number and the versions, by model."""
        self._next_try: dict[str, float] = {}

    async def versions(self, live: LiveRelease) -> tuple[ReleasedVersion, ...]:
        """Return the newest versions of a model that have been live, newest first.

        While the store cannot be read, those read before and the live one are returned.
        """
        name, number = live.manifest.model, live.release.number
        if self._known.get(name, (0, ()))[0] != number:
            async with self._reading:
                await self._read(name, number)
        found = self._known.get(name, (0, ()))[1]
        if all(each.version != live.manifest.version for each in found):
            found = (ReleasedVersion(live.manifest.version, live.release.time), *found)
        return found

    async def _read(self, name: str, number: int) -> None:
        """Read the releases, unless another caller just did or the store just failed."""
        is_known = self._known.get(name, (0, ()))[0] == number
        if is_known or time.monotonic() < self._next_try.get(name, 0.0):
            return
        try:
            versions = await self._threads.run(self._read_versions, name)
        except StoreError as error:
            self._next_try[name] = time.monotonic() + RETRY_S
            log.warning("release_history_read_failed", model=name, error=str(error))
        else:
            self._known[name] = number, versions

    def _read_versions(self, name: str) -> tuple[ReleasedVersion, ...]:
        """Read the newest releases; those that do not verify do not count. Blocks."""
        first: dict[str, Release] = {}
        for number in reversed(self._store.list_releases(name)[-MAX_RECORDS:]):
            try:
                release = self._store.find_release(name, number)
                if release is None or (release.version not in first and len(first) == MAX_VERSIONS):
                    continue
                if release.version not in first:
                    self._cache.open_release(name, release)
            except (VersionNotFound, VersionRefused):
                continue
            first[release.version] = release
        return tuple(ReleasedVersion(version, first[version].time) for version in first)
