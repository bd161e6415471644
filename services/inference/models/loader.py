"""Loads versions: verified, tried on their recorded rows, each by one loader at a time."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from services.common.errors import Unavailable
from services.common.model_answers import is_as_recorded
from services.common.model_releases import check_fits_beside
from services.common.model_store import (
    Manifest,
    Release,
    StoreError,
    VersionNotFound,
    VersionRefused,
)
from services.inference.engine.blocking import Blocking
from services.inference.engine.onnx import OnnxRuntime
from services.inference.engine.pickled import PickledRuntime
from services.inference.engine.runtime import Runtime, measure
from services.inference.models.cache import ModelCache
from services.inference.models.inputs import Inputs
from services.inference.models.metrics import ModelMetrics
from services.inference.models.registry import Live, LoadedModel, ModelNotFound, Registry

LOADS_AT_ONCE = 2
LOAD_DEADLINE_S = 300.0
REQUEST_WAITS_S = 10.0
LISTING_WAITS_S = 1.0
"""How long the store may take to confirm a version that is on the disk."""
LISTING_HOLDS_S = 1.0
LISTING_HOLDS_TIMES = 20.0
"""A listing is good for so many seconds, and for so many times what it took to make: made-up names
can cost no more than that."""
REFUSAL_HOLDS_S = 30.0

T = TypeVar("T")

log = structlog.get_logger()


class Loader:
    """Brings versions into memory, for the watcher and for requests that name them.

    Args:
        allow_joblib: whether pickles may be opened, if a trusted key signed them.
    """

    def __init__(
        self, cache: ModelCache, registry: Registry, *, allow_joblib: bool, metrics: ModelMetrics
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._allow_joblib = allow_joblib
        self._metrics = metrics
        self._load_calls = Blocking(at_once=LOADS_AT_ONCE, deadline_s=LOAD_DEADLINE_S)
        self._list_calls = Blocking(at_once=LOADS_AT_ONCE, deadline_s=REQUEST_WAITS_S)
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._listings: dict[str, tuple[float, list[str]]] = {}
        """Versions by model, and until when that is good enough."""
        self._refusals: dict[tuple[str, str], float] = {}
        """When a version was refused: versions never change, so asking again is of little use."""

    async def go_live(self, name: str, release: Release) -> VersionRefused | None:
        """Load the versions a release names, and have them answer from now on.

        A canary or shadow that does not hold is left out, and the live version serves all; so it
        does, for the time being, if the store fails while they are being loaded.

        Returns:
            What is wrong with the canary, if it takes no requests for that.

        Raises:
            VersionNotFound, VersionRefused: the live version does not hold, or does not answer as
                recorded.
            StoreError: the store cannot be read now; look again.
        """
        manifest = await self._load_calls(self._cache.open_release, name, release)
        if not self._registry.is_resident(name, release.version):
            await self._load_once(name, release.version)
        wrong = await self._load_beside(manifest, release)
        canary, shadow = release.canary, release.shadow
        live = Live(
            release,
            manifest,
            canary=None if canary and canary.version in wrong else canary,
            shadow=None if shadow and shadow.version in wrong else shadow,
        )
        self._registry.set_live(live)
        await self._load_calls(self._cache.set_live, release, manifest)
        for version, fault in wrong.items():
            if not isinstance(fault, VersionNotFound | VersionRefused):
                raise fault
            self._metrics.count_refusal(name, fault)
            log.error("version_refused", model=name, version=version, reason=str(fault))
        refusal = wrong.get(canary.version) if canary else None
        return refusal if isinstance(refusal, VersionRefused) else None

    async def get(self, name: str, version: str | None) -> LoadedModel:
        """A version for a request, loaded if it is not in memory.

        Args:
            version: None for the live one.

        Raises:
            ModelNotFound: there is no such version, or it does not hold, or it failed its gate.
            Unavailable: the store is away, or loading takes longer than a request may wait.
        """
        model = self._registry.find(name, version)
        if model is not None:
            return model
        if version is None:
            version = self._registry.live(name).manifest.version
        elif not await self._is_published(name, version):
            raise ModelNotFound("There is no such version.")
        if time.monotonic() < self._refusals.get((name, version), 0.0):
            raise ModelNotFound("There is no such version that can be served.")
        try:
            async with asyncio.timeout(REQUEST_WAITS_S):
                # Once more, as it may have come while the store was looked at.
                return self._registry.find(name, version) or await self._load_once(name, version)
        except (VersionNotFound, VersionRefused) as error:
            self._remember_refusal(name, version, error)
            raise ModelNotFound("There is no such version that can be served.") from error
        except (StoreError, TimeoutError) as error:
            raise Unavailable("The version is being loaded.", retry_after_s=5) from error

    async def versions(self, name: str) -> list[str]:
        """The complete versions of a model, as of a moment ago, oldest first.

        Raises:
            Unavailable: the store is away, and nothing of the model is kept here.
        """
        good_until, versions = self._listings.get(name, (-math.inf, []))
        if time.monotonic() < good_until:
            return versions
        try:
            async with asyncio.timeout(REQUEST_WAITS_S):
                return await self._once(("versions", name), lambda: self._list(name))
        except (StoreError, TimeoutError) as error:
            raise Unavailable("The model store cannot be read.", retry_after_s=5) from error

    async def drop_untrusted(self) -> None:
        """Unload what no trusted key signed any more, for those who call it by name.

        What is live goes on serving.

        Raises:
            StoreError: the store cannot be asked about one of them now.
        """
        for name, version in self._registry.resident():
            if self._registry.is_live(name, version):
                continue
            try:
                await self._load_calls(self._cache.open_version, name, version)
            except (VersionNotFound, VersionRefused) as error:
                self._registry.drop(name, version)
                self._remember_refusal(name, version, error)

    async def close(self) -> None:
        """Give up what is being loaded."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _is_published(self, name: str, version: str) -> bool:
        if self._registry.is_live(name, version):  # then it needs no look at the store
            return True
        is_kept = await asyncio.to_thread(self._cache.holds, name, version)
        try:
            async with asyncio.timeout(LISTING_WAITS_S if is_kept else None):
                return version in await self.versions(name)
        except (TimeoutError, Unavailable):
            if is_kept:  # its signature is checked again at loading
                return True
            raise

    def _remember_refusal(
        self, name: str, version: str, error: VersionNotFound | VersionRefused
    ) -> None:
        """Let nobody load it again for a while; of all who waited for it, the first tells."""
        now = time.monotonic()
        if self._refusals.get((name, version), 0.0) > now:
            return
        self._refusals = {key: end for key, end in self._refusals.items() if end > now}
        self._refusals[name, version] = now + REFUSAL_HOLDS_S
        if isinstance(error, VersionRefused) and error.reason == "gate":
            return  # nothing is wrong with it, but that somebody asked
        self._metrics.count_refusal(name, error)
        log.error("version_refused", model=name, version=version, reason=str(error))

    async def _list(self, name: str) -> list[str]:
        began = time.monotonic()
        versions = await self._list_calls(self._cache.list_versions, name)
        ended = time.monotonic()
        holds_s = max(LISTING_HOLDS_S, LISTING_HOLDS_TIMES * (ended - began))
        self._listings[name] = ended + holds_s, versions
        return versions

    async def _load_beside(self, live: Manifest, release: Release) -> dict[str, StoreError]:
        """Have the canary and the shadow of a release ready; what is wrong with either, if so."""
        wrong: dict[str, StoreError] = {}
        name = live.model
        for tried in (release.canary, release.shadow):
            if tried is None:
                continue
            try:
                manifest = await self._load_calls(self._cache.open_version, name, tried.version)
                check_fits_beside(manifest, live)
                if not self._registry.is_resident(name, tried.version):
                    await self._load_once(name, tried.version)
            except StoreError as error:
                wrong[tried.version] = error
        return wrong

    async def _load_once(self, name: str, version: str) -> LoadedModel:
        return await self._once((name, version), lambda: self._load(name, version))

    async def _once(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Join the work under way for `key`, or begin it; it goes on if this caller gives up."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._finished(key, done))
        result: T = await asyncio.shield(task)
        return result

    def _finished(self, key: tuple[str, ...], task: "asyncio.Task[Any]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # else asyncio complains of one that nobody waited for any more

    async def _load(self, name: str, version: str) -> LoadedModel:
        model = await self._load_calls(
            lambda: load_version(self._cache, name, version, allow_joblib=self._allow_joblib)
        )
        self._metrics.loads.inc()
        self._registry.add(model)
        return model


def load_version(cache: ModelCache, name: str, version: str, *, allow_joblib: bool) -> LoadedModel:
    """Fetch, verify, load and try a version. Blocks: call it in a thread.

    Raises:
        VersionNotFound, VersionRefused: it does not hold, failed its gate, may not be opened here,
            or does not answer as recorded.
        StoreError: the store cannot be read now.
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
    content = cache.read_served(manifest)
    try:
        return _start(manifest, content)
    except VersionRefused:
        raise
    except Exception as error:  # the runtimes' errors share no base, and none may stop the others
        raise VersionRefused(f"The model {what} cannot be run.", reason="runtime") from error


def _start(manifest: Manifest, content: bytes) -> LoadedModel:
    """Load a file, have it answer the recorded rows, and learn how long it takes.

    Raises:
        VersionRefused: an answer is not the one recorded at training.
    """
    inputs = Inputs(manifest.signature)
    runtime: Runtime
    if manifest.serving == "joblib":
        runtime = PickledRuntime(content, manifest)
    else:
        runtime = OnnxRuntime(content, manifest.signature)
    recorded = manifest.warm_up.rows
    if recorded:
        _compare(manifest, inputs, runtime)
    blank: list[Any] = [None] * len(manifest.signature.columns)
    pace = measure(runtime, inputs.decode([recorded[0] if recorded else blank]))
    return LoadedModel(manifest, inputs, runtime, pace, size=len(content))


def _compare(manifest: Manifest, inputs: Inputs, runtime: Runtime) -> None:
    recorded = manifest.warm_up
    answer = runtime.run(
        inputs.decode(list(recorded.rows)),
        probabilities=manifest.signature.task == "classification",
    )
    if not is_as_recorded(recorded, answer.predictions, answer.probabilities):
        what = f"{manifest.model} {manifest.version}"
        raise VersionRefused(f"{what} does not answer as recorded.", reason="warm_up")
