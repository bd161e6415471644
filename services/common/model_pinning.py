"""Pin a model to a version, and unpin it: what `tollgate models pin` and `unpin` do."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from services.common.model_pins import append_pin, find_pin
from services.common.model_records import PinRecord
from services.common.model_releases import Decision, ReleaseManager


@dataclass(frozen=True)
class PinDecision:
    """The outcome of a command.

    Args:
        record: what was written; None if the goal was met already.
        release: what was released to have the pinned version live; None if it was live.
    """

    record: PinRecord | None
    release: Decision | None = None


def pin(
    release_manager: ReleaseManager,
    model: str,
    *,
    version: str,
    until: datetime | None,
    reason: str,
) -> PinDecision:
    """Hold automatic releases back, and have a version live.

    Args:
        until: when the pin ends by itself; None if it does not.

    Raises:
        PinTaken, Pinned: another writer pinned or unpinned the model at the same moment.
        VersionNotFound, VersionRefused, ReleaseTaken: as `ReleaseManager.release`.
    """
    store, trusted = release_manager.store, release_manager.trusted
    release_manager.check_may_be_live(model, version)

    def decide(number: int) -> PinRecord | None:
        found = find_pin(store, model, trusted)
        if found and not found.by_rollback and (found.version, found.until) == (version, until):
            return None
        return _record(
            release_manager, model, number, "pin", version=version, until=until, reason=reason
        )

    record = append_pin(store, model, decide=decide)
    # After the record: an automatic release that was quicker is replaced, a later one is held back.
    live = store.live_record(model, trusted, allow_joblib=release_manager.allow_joblib)
    if live is not None and live.version == version:
        return PinDecision(record)
    # As an automatic release, so that it gives way to a pin that another writer made meanwhile.
    released = release_manager.release(model, version=version, reason=reason, automatic=True)
    return PinDecision(record, released)


def unpin(release_manager: ReleaseManager, model: str, *, reason: str) -> PinDecision:
    """Let automatic releases go live again.

    Raises:
        PinTaken: as `pin`.
    """

    def decide(number: int) -> PinRecord | None:
        if find_pin(release_manager.store, model, release_manager.trusted) is None:
            return None
        return _record(
            release_manager, model, number, "unpin", version=None, until=None, reason=reason
        )

    return PinDecision(append_pin(release_manager.store, model, decide=decide))


def _record(
    release_manager: ReleaseManager,
    model: str,
    number: int,
    action: Literal["pin", "unpin"],
    *,
    version: str | None,
    until: datetime | None,
    reason: str,
) -> PinRecord:
    return PinRecord(
        number=number,
        action=action,
        version=version,
        until=until,
        release=max(release_manager.store.list_releases(model), default=0),
        by=release_manager.by,
        reason=reason,
        time=datetime.now(UTC),
    )
