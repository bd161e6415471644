"""Put a trained version live, unless a pin holds it back or inference would refuse it."""

from dataclasses import dataclass
from typing import Literal

from services.common.model_pins import Pinned
from services.common.model_records import Manifest, RunRecord, VersionNotFound, VersionRefused
from services.common.model_releases import ReleaseManager
from services.common.model_store import ModelStore, TrustedKeys

Gate = Literal["passed", "failed", "forced"]


@dataclass(frozen=True)
class Released:
    """What became of an automatic release.

    Args:
        number: of the record that has the version live; None if it did not go live.
        pinned: why it was held back, as a sentence.
        refused: why inference would refuse the version, as a sentence.
    """

    number: int | None = None
    pinned: str | None = None
    refused: str | None = None


def release_automatically(
    release_manager: ReleaseManager, manifest: Manifest, *, reason: str
) -> Released:
    """Release a version after its training.

    Raises:
        ReleaseTaken: another writer released something else at the same moment.
        StoreError: the store cannot be used.
    """
    try:
        decision = release_manager.release(
            manifest.model, version=manifest.version, reason=reason, automatic=True
        )
    except Pinned as error:
        return Released(pinned=str(error))
    except VersionRefused as error:
        if error.reason != "joblib":
            raise
        return Released(refused=str(error))
    return Released(number=decision.live.number)


def find_gate_of_run(
    store: ModelStore, model: str, run: RunRecord, trusted: TrustedKeys
) -> tuple[Gate | None, list[str]]:
    """The gate of an earlier run and why it failed; records of older runs have only the version."""
    try:
        manifest = store.open_version(model, run.version, trusted)
    except (VersionNotFound, VersionRefused):
        return run.gate, []
    reasons = manifest.metrics.get("reasons", [])
    return run.gate or manifest.gate, [str(reason) for reason in reasons]
