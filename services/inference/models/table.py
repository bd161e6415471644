"""The model table: the live release of each model, and the versions in memory."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from registry.deprecations import Deprecations
from registry.explanations import Explainer
from registry.records import Canary, Manifest, Release, Shadow, is_version_name
from registry.runtimes.runtime import Runtime
from services.common.errors import NotFound, Unavailable
from services.inference.models.deprecations import deprecation_headers
from services.inference.models.inputs import Inputs
from services.inference.models.latency import LatencyEstimate
from services.inference.models.metrics import ModelMetrics

NO_VERSION = ""
"""The `version` label of the live-release metric for a model without a live version."""


class ModelNotFound(NotFound):
    """The model or version does not exist or is not released."""

    code = "model_not_found"
    detail = "Model not found."


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version in memory; `size` in bytes of its files.

    Args:
        explainer: what explains its predictions; few old versions have none.
        headers: what its answers carry besides their receipt; only deprecated versions have any.
    """

    manifest: Manifest
    inputs: Inputs
    runtime: Runtime
    latency: LatencyEstimate
    size: int
    explainer: Explainer | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def is_classifier(self) -> bool:
        return self.manifest.signature.task == "classification"


@dataclass(frozen=True, slots=True)
class LiveRelease:
    """The release that answers requests that name no version.

    Args:
        canary: the release's canary, if it could be loaded.
        shadow: the release's shadow, likewise.
    """

    release: Release
    manifest: Manifest
    canary: Canary | None = None
    shadow: Shadow | None = None

    def versions(self) -> set[str]:
        """Return the versions to keep in memory."""
        beside = (tried.version for tried in (self.canary, self.shadow) if tried)
        return {self.manifest.version, *beside}


class ModelTable:
    """Live releases by model, and the versions in memory by last use.

    Beyond `max_bytes` the least recently used version is unloaded: first those that are not live,
    and never the last one. A live version is loaded again on the next request. Requests in
    progress finish on the version they started with.

    Args:
        max_bytes: limit of the total size of their files; 0 means no limit.
    """

    def __init__(self, *, max_bytes: int, metrics: ModelMetrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._live: dict[str, LiveRelease] = {}
        self._withdrawn: dict[str, int] = {}
        """Numbers of the withdrawal records of models without a live version."""
        self._resident: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self._deprecations: dict[str, Deprecations] = {}
        self.changes = 0
        """Counts what changes about the live models, so that others can cache what they derive."""
        self.known: frozenset[str] = frozenset()
        """Names of the models in the store, as of the last read."""
        self.complete = False
        """Whether the store has been read completely; until then an unknown model may exist."""

    def find(self, name: str, version: str | None = None) -> LoadedModel | None:
        """Return a version and mark it as used; None if it is not in memory.

        Args:
            version: None for the live version.

        Raises:
            ModelNotFound: the model is unknown or has no live version, or the name of the version
                is invalid.
            Unavailable: the models are still being loaded.
        """
        if version is None:
            version = self.live(name).manifest.version
        else:
            self.check(name, version)
        key = name, version
        model = self._resident.get(key)
        if model is not None:
            self._resident.move_to_end(key)
        return model

    def find_beyond_trial(self, name: str, version: str | None) -> LoadedModel | None:
        """Do as `find`, but return None while the live version has a canary beside it."""
        if version is None and self.live(name).canary is not None:
            return None
        return self.find(name, version)

    def live(self, name: str) -> LiveRelease:
        """Return the live release of a model.

        Raises:
            ModelNotFound, Unavailable: as `find`.
        """
        live = self._live.get(name)
        if live is None:
            raise self._absent(name)
        return live

    def find_live(self, name: str) -> LiveRelease | None:
        """Return the live release of a model, or None."""
        return self._live.get(name)

    def check(self, name: str, version: str) -> None:
        """Check that a version may exist, without asking the store.

        Raises:
            ModelNotFound, Unavailable: as `find`.
        """
        if name not in self._live and name not in self.known:
            raise self._absent(name)
        if not is_version_name(version):
            raise version_not_found(name, version)

    def __contains__(self, name: str) -> bool:
        return name in self._live or name in self.known

    def names(self) -> list[str]:
        """Return the names of the live models, sorted."""
        return sorted(self._live)

    def is_resident(self, name: str, version: str) -> bool:
        """Return whether a version is in memory; does not count as an access."""
        return (name, version) in self._resident

    def resident(self) -> list[tuple[str, str]]:
        """Return the name and version of everything in memory."""
        return list(self._resident)

    def is_live(self, name: str, version: str) -> bool:
        """Return whether a version is the live one of its model."""
        live = self._live.get(name)
        return live is not None and live.manifest.version == version

    def live_number(self, name: str) -> int:
        """Return the number of the release or withdrawal in force, or 0."""
        live = self._live.get(name)
        return live.release.number if live else self._withdrawn.get(name, 0)

    def is_whole(self, name: str) -> bool:
        """Return whether the live release is served with its canary and shadow, if it has them."""
        live = self._live.get(name)
        return live is None or (live.canary, live.shadow) == (
            live.release.canary,
            live.release.shadow,
        )

    def add(self, model: LoadedModel) -> LoadedModel:
        """Add a loaded version, and unload others if there is no room; return it as stored."""
        key = model.manifest.model, model.manifest.version
        stored = self._resident[key] = self._with_headers(model)
        self._resident.move_to_end(key)
        self._make_room()
        return stored

    def drop(self, name: str, version: str) -> None:
        """Unload a version."""
        self._resident.pop((name, version), None)
        self._make_room()

    def set_live(self, live: LiveRelease) -> None:
        """Activate a release."""
        name = live.manifest.model
        self._forget_live(name)
        self._live[name] = live
        self.changes += 1
        self._metrics.live.labels(name, live.manifest.version).set(live.release.number)
        if live.canary is not None:
            self._metrics.canary.labels(name, live.canary.version).set(live.canary.percent)

    def withdraw(self, name: str, number: int) -> None:
        """Deactivate a model, by the withdrawal record with this number."""
        self._forget_live(name)
        self._withdrawn[name] = number
        self.changes += 1
        self._metrics.live.labels(name, NO_VERSION).set(number)

    def set_deprecations(self, name: str, deprecations: Deprecations) -> None:
        """Set the deprecations in force of a model's versions."""
        self._deprecations[name] = deprecations
        self.changes += 1
        for key, model in self._resident.items():
            if key[0] == name:
                self._resident[key] = self._with_headers(model)

    def deprecations(self, name: str) -> Deprecations:
        """Return the deprecations in force of a model's versions."""
        return self._deprecations.get(name, {})

    def _with_headers(self, model: LoadedModel) -> LoadedModel:
        """Return a version with the headers of its deprecation, if it is deprecated."""
        manifest = model.manifest
        headers = deprecation_headers(self.deprecations(manifest.model).get(manifest.version))
        return model if headers == model.headers else replace(model, headers=headers)

    def _forget_live(self, name: str) -> None:
        if (live := self._live.pop(name, None)) is not None:
            self._metrics.live.remove(name, live.manifest.version)
            if live.canary is not None:
                self._metrics.canary.remove(name, live.canary.version)
        if self._withdrawn.pop(name, None) is not None:
            self._metrics.live.remove(name, NO_VERSION)

    def _make_room(self) -> None:
        live = {(name, each) for name, live in self._live.items() for each in live.versions()}
        total = sum(model.size for model in self._resident.values())
        others = list(self._resident)[:-1]  # all but the most recently used
        for key in sorted(others, key=live.__contains__):  # a stable sort keeps the order of use
            if not self._max_bytes or total <= self._max_bytes:
                break
            total -= self._resident.pop(key).size
        self._metrics.loaded.set(len(self._resident))
        self._metrics.loaded_bytes.set(total)

    def _absent(self, name: str) -> NotFound | Unavailable:
        if self.complete:
            return ModelNotFound(f"Model '{name}' not found.")
        return Unavailable("Models are still being loaded; retry later.")


def version_not_found(name: str, version: str) -> ModelNotFound:
    """Return the error for an unknown version."""
    return ModelNotFound(f"Version '{version}' of model '{name}' not found.")
