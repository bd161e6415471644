"""The models this process serves: loaded, warmed up, and swapped by one reference."""

import math
from dataclasses import dataclass
from typing import Any

from services.common.errors import NotFound, Unavailable
from services.common.model_store import Manifest, ModelStore, Release, TrustedKeys, VersionRefused
from services.inference.engine.runtime import Runtime
from services.inference.models.inputs import Inputs

PROBABILITY_TOLERANCE = 1e-5
NUMBER_TOLERANCE = 1e-4
"""How far an answer may be from the one recorded at training (relative for numbers)."""


class ModelNotFound(NotFound):
    """No such model, or none of its versions is released."""

    code = "model_not_found"
    detail = "There is no such model."


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One version of a model, ready to answer."""

    manifest: Manifest
    release: Release
    inputs: Inputs
    runtime: Runtime

    @property
    def is_classifier(self) -> bool:
        return self.manifest.signature.task == "classification"


@dataclass(slots=True)
class Slot:
    """What is served under one name; the version before stays at hand for a way back."""

    live: LoadedModel
    previous: LoadedModel | None = None


class Registry:
    """The live models by name."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self.complete = False
        """Whether the store has been looked through; before, a missing model proves nothing."""

    def get(self, name: str) -> LoadedModel:
        """The live version of a model.

        Raises:
            ModelNotFound: nothing is live under that name.
            Unavailable: the models are still being loaded.
        """
        slot = self._slots.get(name)
        if slot is not None:
            return slot.live
        if not self.complete:
            raise Unavailable("The models are still being loaded.")
        raise ModelNotFound()

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def names(self) -> list[str]:
        return sorted(self._slots)

    def resident(self, name: str, version: str) -> LoadedModel | None:
        """A version still in memory, live or the one before."""
        slot = self._slots.get(name)
        candidates = (slot.live, slot.previous) if slot else ()
        return next((m for m in candidates if m and m.manifest.version == version), None)

    def live_number(self, name: str) -> int:
        """The number of the release being served; 0 if none is."""
        slot = self._slots.get(name)
        return slot.live.release.number if slot else 0

    def put(self, model: LoadedModel) -> LoadedModel | None:
        """Make a version live: requests that have begun finish on the one they began with.

        Returns:
            What was live before, if anything.
        """
        name = model.manifest.model
        slot = self._slots.get(name)
        if slot is None:
            self._slots[name] = Slot(model)
            return None
        before = slot.live
        if before.manifest.version != model.manifest.version:
            slot.previous = before
        slot.live = model
        return before


def load_release(
    store: ModelStore, trusted: TrustedKeys, name: str, release: Release
) -> LoadedModel:
    """Fetch, verify, load and try the version a release names. Blocks: call it in a thread.

    Raises:
        VersionNotFound, VersionRefused: it does not hold, or does not answer as recorded.
        StoreError: the store cannot be read now.
    """
    manifest = store.open_release(name, release, trusted)
    content = store.read_file(manifest, "model.onnx")
    signature = manifest.signature
    try:
        runtime = Runtime(
            content,
            classifier=signature.task == "classification",
            boolean_classes=any(label is True for label in signature.classes or []),
        )
        model = LoadedModel(manifest, release, Inputs(signature), runtime)
        _warm_up(model)
    except VersionRefused:
        raise
    except Exception as error:  # onnxruntime's errors share no base, and none may stop the others
        what = f"{name} {release.version}"
        raise VersionRefused(f"The model {what} cannot be run.", reason="runtime") from error
    return model


def _warm_up(model: LoadedModel) -> None:
    """Answer the recorded rows, and learn how long it takes.

    Raises:
        VersionRefused: an answer is not the one recorded at training.
    """
    recorded = model.manifest.warm_up
    blank: list[Any] = [None] * len(model.manifest.signature.columns)
    if recorded.rows:
        arrays = model.inputs.decode(list(recorded.rows))
        answer = model.runtime.run(arrays, probabilities=model.is_classifier)
        same = _same(answer.predictions, recorded.predictions, NUMBER_TOLERANCE) and all(
            _same(got, wanted, PROBABILITY_TOLERANCE)
            for got, wanted in zip(
                answer.probabilities or [], recorded.probabilities or [], strict=True
            )
        )
        if not same:
            what = f"{model.manifest.model} {model.manifest.version}"
            raise VersionRefused(f"{what} does not answer as recorded.", reason="warm_up")
    model.runtime.measure(model.inputs.decode([recorded.rows[0] if recorded.rows else blank]))


def _same(got: list[Any], wanted: list[Any], tolerance: float) -> bool:
    """Equal labels, or numbers that are close (relative to those above 1)."""
    return len(got) == len(wanted) and all(
        math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
        if isinstance(a, float) or isinstance(b, float)
        else a == b
        for a, b in zip(got, wanted, strict=True)
    )
