"""The models in memory, which of them are live, and which have to make room for others."""

from collections import OrderedDict
from dataclasses import dataclass

from services.common.errors import NotFound, Unavailable
from services.common.model_records import is_version_name
from services.common.model_store import Canary, Manifest, Release, Shadow
from services.inference.engine.runtime import Pace, Runtime
from services.inference.models.inputs import Inputs
from services.inference.models.metrics import ModelMetrics

NO_VERSION = ""
"""Label of the live-release metric of a model without a live version."""


class ModelNotFound(NotFound):
    """No such model or version, or nothing of it is released."""

    code = "model_not_found"
    detail = "There is no such model."


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One version of a model, ready to answer; `size` in bytes of its file."""

    manifest: Manifest
    inputs: Inputs
    runtime: Runtime
    pace: Pace
    size: int

    @property
    def is_classifier(self) -> bool:
        return self.manifest.signature.task == "classification"


@dataclass(frozen=True, slots=True)
class Live:
    """What a model's requests are answered by when they name no version.

    Args:
        canary: of the release, if that version could be loaded here.
        shadow: likewise.
    """

    release: Release
    manifest: Manifest
    canary: Canary | None = None
    shadow: Shadow | None = None

    def versions(self) -> set[str]:
        """Everything that is to be kept in memory."""
        beside = (tried.version for tried in (self.canary, self.shadow) if tried)
        return {self.manifest.version, *beside}


class Registry:
    """Live versions by name, and versions in memory in the order of their last use.

    Beyond `max_bytes` the version used least recently is unloaded, first of those that are not
    live, but never the last one. A live one comes back when it is asked for. Requests in flight
    finish on the version they began with, in memory or not.

    Args:
        max_bytes: for the sizes of the versions' files together; 0 is no bound.
    """

    def __init__(self, *, max_bytes: int, metrics: ModelMetrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._live: dict[str, Live] = {}
        self._withdrawn: dict[str, int] = {}
        """Numbers of the records by which models have no live version."""
        self._resident: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self.known: frozenset[str] = frozenset()
        """Names of the models that the store held at the last look."""
        self.complete = False
        """Whether the store has been looked through; before, a missing model proves nothing."""

    def find(self, name: str, version: str | None = None) -> LoadedModel | None:
        """A version that is in memory, from now on the one used last; None if it is to be loaded.

        Args:
            version: None for the live one.

        Raises:
            ModelNotFound: there is no such model, nothing of it is live, or that is no version.
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

    def live(self, name: str) -> Live:
        """What is live under a name; raises as `find`."""
        live = self._live.get(name)
        if live is None:
            raise self._absent()
        return live

    def find_live(self, name: str) -> Live | None:
        """What is live under a name; None if nothing is, any more or yet."""
        return self._live.get(name)

    def check(self, name: str, version: str) -> None:
        """Raise as `find` if there can be no such version; whether there is one the store knows."""
        if name not in self._live and name not in self.known:
            raise self._absent()
        if not is_version_name(version):
            raise ModelNotFound("There is no such version.")

    def __contains__(self, name: str) -> bool:
        return name in self._live or name in self.known

    def names(self) -> list[str]:
        """The models that are live, sorted."""
        return sorted(self._live)

    def is_resident(self, name: str, version: str) -> bool:
        """Whether a version is in memory; this is no use of it."""
        return (name, version) in self._resident

    def resident(self) -> list[tuple[str, str]]:
        """Name and version of all that is in memory."""
        return list(self._resident)

    def is_live(self, name: str, version: str) -> bool:
        """Whether a version is the live one of its model."""
        live = self._live.get(name)
        return live is not None and live.manifest.version == version

    def live_number(self, name: str) -> int:
        """The number of the record that decides what is served; 0 if there is none."""
        live = self._live.get(name)
        return live.release.number if live else self._withdrawn.get(name, 0)

    def is_whole(self, name: str) -> bool:
        """Whether nothing of the release being served had to be left out."""
        live = self._live.get(name)
        return live is None or (live.canary, live.shadow) == (
            live.release.canary,
            live.release.shadow,
        )

    def add(self, model: LoadedModel) -> None:
        """Take a version into memory, and unload what there is no room for."""
        key = model.manifest.model, model.manifest.version
        self._resident[key] = model
        self._resident.move_to_end(key)
        self._make_room()

    def drop(self, name: str, version: str) -> None:
        """Unload a version."""
        self._resident.pop((name, version), None)
        self._make_room()

    def set_live(self, live: Live) -> None:
        """From now on requests that name no version are answered as this says."""
        name = live.manifest.model
        self._forget_live(name)
        self._live[name] = live
        self._metrics.live.labels(name, live.manifest.version).set(live.release.number)

    def withdraw(self, name: str, number: int) -> None:
        """From now on no version of a model is live, by the record with this number."""
        self._forget_live(name)
        self._withdrawn[name] = number
        self._metrics.live.labels(name, NO_VERSION).set(number)

    def _forget_live(self, name: str) -> None:
        if (live := self._live.pop(name, None)) is not None:
            self._metrics.live.remove(name, live.manifest.version)
        if self._withdrawn.pop(name, None) is not None:
            self._metrics.live.remove(name, NO_VERSION)

    def _make_room(self) -> None:
        live = {(name, each) for name, live in self._live.items() for each in live.versions()}
        total = sum(model.size for model in self._resident.values())
        others = list(self._resident)[:-1]  # all but the one used last
        for key in sorted(others, key=live.__contains__):  # stable: still by last use
            if not self._max_bytes or total <= self._max_bytes:
                break
            total -= self._resident.pop(key).size
        self._metrics.loaded.set(len(self._resident))
        self._metrics.loaded_bytes.set(total)

    def _absent(self) -> NotFound | Unavailable:
        if self.complete:
            return ModelNotFound()
        return Unavailable("The models are still being loaded.")
