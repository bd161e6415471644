"""Load versions into memory, after verifying them and testing them on recorded rows."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from registry.explain.artefact import load_explainer, sample
from registry.explanations import Explainer
from registry.records import Manifest, Release, StoreError, VersionNotFound, VersionRefused
from registry.releases import check_fits_beside
from registry.runtimes.onnx import OnnxRuntime
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import load_pickled
from registry.tolerances import is_as_recorded
from services.common.errors import Unavailable
from services.inference.models.cache import ModelCache
from services.inference.models.inputs import Inputs
from services.inference.models.latency import estimate_latency
from services.inference.models.metrics import ModelMetrics
from services.inference.models.table import (
    LiveRelease,
    LoadedModel,
    ModelNotFound,
    ModelTable,
    version_not_found,
)
from services.inference.thread_limiter import ThreadLimiter

LOADS_AT_ONCE = 2
LOAD_DEADLINE_S = 300.0
REQUEST_WAITS_S = 10.0
LISTING_WAITS_S = 1.0
"""How long the store may take to confirm a version that is on the disk."""
LISTING_TTL_S = 1.0
LISTING_TTL_FACTOR = 20.0
REFUSAL_TTL_S = 30.0

T = TypeVar("T")

log = structlog.get_logger()


class Loader:
    """Loads versions for the watcher, and for requests that name a version.

    Args:
        allow_joblib: whether pickles signed by a trusted key may be loaded.
        load_waits_s: how long a request waits for a version to be loaded, in seconds.
        listing_ttl_s: how long a listing of versions is reused, in seconds…
        listing_ttl_factor: …or this many times its own duration if that is longer, to bound the
            cost of requests for made-up names.
    """

    def __init__(
        self,
        cache: ModelCache,
        table: ModelTable,
        *,
        allow_joblib: bool,
        metrics: ModelMetrics,
        load_waits_s: float = REQUEST_WAITS_S,
        listing_ttl_s: float = LISTING_TTL_S,
        listing_ttl_factor: float = LISTING_TTL_FACTOR,
    ) -> None:
        self._cache = cache
        self._table = table
        self._allow_joblib = allow_joblib
        self._metrics = metrics
        self._load_waits_s = load_waits_s
        self._listing_ttl_s = listing_ttl_s
        self._listing_ttl_factor = listing_ttl_factor
        self._load_threads = ThreadLimiter(at_once=LOADS_AT_ONCE, deadline_s=LOAD_DEADLINE_S)
        self._list_threads = ThreadLimiter(at_once=LOADS_AT_ONCE, deadline_s=REQUEST_WAITS_S)
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._listings: dict[str, tuple[float, list[str]]] = {}
        """Expiry time and versions by model."""
        self._refusals: dict[tuple[str, str], float] = {}
        """Expiry times of refusals. Versions never change, so an early retry would fail again."""

    async def go_live(self, name: str, release: Release) -> VersionRefused | None:
        """Load the versions of a release and activate it.

        If the canary or shadow is invalid, it is left out and the live version serves all requests.
        The same applies, until the next attempt, if the store fails while they are being loaded.

        Returns:
            Why the canary was refused, or None.

        Raises:
            VersionNotFound, VersionRefused: the live version is invalid, or does not reproduce its
                recorded answers.
            StoreError: the store cannot be read right now.
        """
        manifest = await self._load_threads.run(self._cache.open_release, name, release)
        if not self._table.is_resident(name, release.version):
            await self._load_once(name, release.version)
        failed = await self._load_beside(manifest, release)
        canary, shadow = release.canary, release.shadow
        live = LiveRelease(
            release,
            manifest,
            canary=None if canary and canary.version in failed else canary,
            shadow=None if shadow and shadow.version in failed else shadow,
        )
        self._table.set_live(live)
        await self._load_threads.run(self._cache.set_live, release, manifest)
        for version, error in failed.items():
            if not isinstance(error, VersionNotFound | VersionRefused):
                raise error
            self._metrics.count_refusal(name, error)
            log.error("version_refused", model=name, version=version, reason=str(error))
        refusal = failed.get(canary.version) if canary else None
        return refusal if isinstance(refusal, VersionRefused) else None

    async def get(self, name: str, version: str | None) -> LoadedModel:
        """Return a version for a request, loading it if necessary.

        Args:
            version: None for the live version.

        Raises:
            ModelNotFound: the version does not exist, is invalid or failed its gate.
            Unavailable: the store is unavailable, or loading takes too long for a request.
        """
        model = self._table.find(name, version)
        if model is not None:
            return model
        if version is None:
            version = self._table.live(name).manifest.version
        elif not await self._is_published(name, version):
            raise version_not_found(name, version)
        if time.monotonic() < self._refusals.get((name, version), 0.0):
            raise _cannot_be_served(name, version)
        try:
            async with asyncio.timeout(self._load_waits_s):
                # Look again, because it may have been loaded during the listing.
                return self._table.find(name, version) or await self._load_once(name, version)
        except (VersionNotFound, VersionRefused) as error:
            self._remember_refusal(name, version, error)
            raise _cannot_be_served(name, version) from error
        except (StoreError, TimeoutError) as error:
            message = f"Version '{version}' of model '{name}' is still loading; retry in 5 s."
            raise Unavailable(message, retry_after_s=5) from error

    async def versions(self, name: str) -> list[str]:
        """Return the complete versions of a model, oldest first; the list may be slightly stale.

        Raises:
            Unavailable: the store is unavailable, and no version of the model is cached.
        """
        expires_at, versions = self._listings.get(name, (-math.inf, []))
        if time.monotonic() < expires_at:
            return versions
        try:
            async with asyncio.timeout(REQUEST_WAITS_S):
                return await self._once(("versions", name), lambda: self._list(name))
        except (StoreError, TimeoutError) as error:
            raise Unavailable(
                "The model store is unavailable; retry in 5 s.", retry_after_s=5
            ) from error

    async def drop_untrusted(self) -> None:
        """Unload versions that are no longer signed by a trusted key, except live ones.

        Raises:
            StoreError: the store cannot be read right now.
        """
        for name, version in self._table.resident():
            if self._table.is_live(name, version):
                continue
            try:
                await self._load_threads.run(self._cache.open_version, name, version)
            except (VersionNotFound, VersionRefused) as error:
                self._table.drop(name, version)
                self._remember_refusal(name, version, error)

    async def close(self) -> None:
        """Cancel all loading."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _is_published(self, name: str, version: str) -> bool:
        if self._table.is_live(name, version):  # no need to ask the store
            return True
        is_cached = await asyncio.to_thread(self._cache.has_version, name, version)
        try:
            async with asyncio.timeout(LISTING_WAITS_S if is_cached else None):
                return version in await self.versions(name)
        except (TimeoutError, Unavailable):
            if is_cached:  # its signature is verified when it is loaded
                return True
            raise

    def _remember_refusal(
        self, name: str, version: str, error: VersionNotFound | VersionRefused
    ) -> None:
        """Back off after a failed load. The first waiter logs it."""
        now = time.monotonic()
        if self._refusals.get((name, version), 0.0) > now:
            return
        self._refusals = {key: end for key, end in self._refusals.items() if end > now}
        self._refusals[name, version] = now + REFUSAL_TTL_S
        if isinstance(error, VersionRefused) and error.reason == "gate":
            return  # expected: such a version must not be served
        self._metrics.count_refusal(name, error)
        log.error("version_refused", model=name, version=version, reason=str(error))

    async def _list(self, name: str) -> list[str]:
        began = time.monotonic()
        versions = await self._list_threads.run(self._cache.list_versions, name)
        ended = time.monotonic()
        ttl_s = max(self._listing_ttl_s, self._listing_ttl_factor * (ended - began))
        self._listings[name] = ended + ttl_s, versions
        return versions

    async def _load_beside(self, live: Manifest, release: Release) -> dict[str, StoreError]:
        """Load the canary and the shadow of a release; return the errors by version."""
        failed: dict[str, StoreError] = {}
        name = live.model
        for tried in (release.canary, release.shadow):
            if tried is None:
                continue
            try:
                manifest = await self._load_threads.run(
                    self._cache.open_version, name, tried.version
                )
                check_fits_beside(manifest, live)
                if not self._table.is_resident(name, tried.version):
                    await self._load_once(name, tried.version)
            except StoreError as error:
                failed[tried.version] = error
        return failed

    async def _load_once(self, name: str, version: str) -> LoadedModel:
        return await self._once((name, version), lambda: self._load(name, version))

    async def _once(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Share one task per `key` between callers; it continues if a caller is cancelled."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._finished(key, done))
        result: T = await asyncio.shield(task)
        return result

    def _finished(self, key: tuple[str, ...], task: "asyncio.Task[Any]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # mark as retrieved: all callers may be gone

    async def _load(self, name: str, version: str) -> LoadedModel:
        model = await self._load_threads.run(
            lambda: load_version(self._cache, name, version, allow_joblib=self._allow_joblib)
        )
        self._metrics.loads.inc()
        return self._table.add(model)


def _cannot_be_served(name: str, version: str) -> ModelNotFound:
    return ModelNotFound(f"Version '{version}' of model '{name}' cannot be served.")


def load_version(cache: ModelCache, name: str, version: str, *, allow_joblib: bool) -> LoadedModel:
    """Fetch, verify, load and test a version. Blocks: call it in a thread.

    Raises:
        VersionNotFound, VersionRefused: the version is invalid, failed its gate, is a pickle that
            is not allowed here, or does not reproduce its recorded answers.
        StoreError: the store cannot be read right now.
    """
    what = f"{name} {version}"
    manifest = cache.open_version(name, version)
    if manifest.gate == "failed":
        raise VersionRefused(f"The version {what} failed its gate.", reason="gate")
    if manifest.serving == "joblib" and not allow_joblib:
        raise VersionRefused(
            f"The version {what} is a pickle, and INFERENCE_ALLOW_JOBLIB is not set.",
            reason="joblib",
        )
    content, explainer = cache.read_served(manifest), cache.read_explainer(manifest)
    try:
        return _start(manifest, content, explainer)
    except VersionRefused:
        raise
    except Exception as error:  # the runtimes' errors share no base class
        log.warning("model_start_failed", model=name, version=version, exc_info=error)
        raise VersionRefused(f"The model {what} cannot be run.", reason="runtime") from error


def _start(manifest: Manifest, content: bytes, explainer: bytes | None) -> LoadedModel:
    """Load a version's files, test the model on the recorded rows, and measure its latency.

    Raises:
        VersionRefused: an answer differs from the one recorded in training.
    """
    inputs = Inputs(manifest.signature)
    runtime: Runtime
    if manifest.serving == "joblib":
        runtime = load_pickled(content, manifest)
    else:
        runtime = OnnxRuntime(content, manifest.signature, expands=manifest.origin is None)
    recorded = manifest.warm_up.rows
    if recorded:
        _compare(manifest, inputs, runtime)
    blank: list[Any] = [None] * len(manifest.signature.columns)
    latency = estimate_latency(runtime, inputs.decode([recorded[0] if recorded else blank]))
    return LoadedModel(
        manifest,
        inputs,
        runtime,
        latency,
        size=len(content) + len(explainer or b""),
        explainer=_load_explainer(manifest, explainer, inputs, runtime),
    )


def _load_explainer(
    manifest: Manifest, content: bytes | None, inputs: Inputs, runtime: Runtime
) -> Explainer | None:
    """Load an explainer; without a file, the recorded rows are the background to sample from."""
    if content is not None:
        return load_explainer(content, manifest.signature, runtime, inputs.decode)
    recorded = manifest.warm_up.rows
    if not recorded:
        return None
    with suppress(ValueError):
        return sample(recorded, manifest.signature, runtime, inputs.decode)
    return None


def _compare(manifest: Manifest, inputs: Inputs, runtime: Runtime) -> None:
    recorded = manifest.warm_up
    response = runtime.run(
        inputs.decode(list(recorded.rows)),
        probabilities=manifest.signature.task == "classification",
    )
    if not is_as_recorded(recorded, response.predictions, response.probabilities):
        what = f"{manifest.model} {manifest.version}"
        raise VersionRefused(f"{what} does not answer as recorded.", reason="warm_up")
