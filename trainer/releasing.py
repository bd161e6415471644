"""Release a trained version, unless a pin blocks it or inference would refuse it."""

from dataclasses import dataclass
from typing import Literal

from services.common.model_pins import Pinned
from services.common.model_records import Manifest, RunRecord, VersionNotFound, VersionRefused
from services.common.model_releases import ReleaseManager
from services.common.model_store import ModelStore, TrustedKeys

Gate = Literal["passed", "failed", "forced"]


@dataclass(frozen=True)
class ReleaseOutcome:
    """The outcome of an automatic release.

    Args:
        number: the release number; None if the version did not go live.
        pinned: a sentence about the pin that blocked the release.
        refused: a sentence why inference would refuse the version.
    """

    number: int | None = None
    pinned: str | None = None
    refused: str | None = None


def release_automatically(
    release_manager: ReleaseManager, manifest: Manifest, *, reason: str
) -> ReleaseOutcome:
    """Releases a version after training.

    Raises:
        ReleaseTaken: another writer released a different version at the same moment.
        StoreError: the store is unavailable.
    """
    try:
        decision = release_manager.release(
            manifest.model, version=manifest.version, reason=reason, automatic=True
        )
    except Pinned as error:
        return ReleaseOutcome(pinned=str(error))
    except VersionRefused as error:
        if error.reason != "joblib":
            raise
        return ReleaseOutcome(refused=str(error))
    return ReleaseOutcome(number=decision.live.number)


def find_gate_of_run(
    store: ModelStore, model: str, run: RunRecord, trusted: TrustedKeys
) -> tuple[Gate | None, list[str]]:
    """Returns the gate of a recorded run and why it failed; old records have only the version."""
    try:
        manifest = store.open_version(model, run.version, trusted)
    except (VersionNotFound, VersionRefused):
        return run.gate, []
    reasons = manifest.metrics.get("reasons", [])
    return run.gate or manifest.gate, [str(reason) for reason in reasons]
