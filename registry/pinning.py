"""Pin a model to a version, and unpin it, for `tollgate models pin` and `unpin`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from registry.pins import append_pin, find_pin
from registry.records import PinRecord
from registry.releases import Decision, ReleaseManager


@dataclass(frozen=True)
class PinDecision:
    """The outcome of a command.

    Args:
        record: the record written; None if there was nothing to do.
        release: the release that made the pinned version live; None if it already was.
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
    """Pin a model to a version and make that version live.

    Args:
        until: when the pin expires; None for never.

    Raises:
        PinTaken, Pinned: another writer pinned or unpinned the model at the same time.
        VersionNotFound, VersionRefused, ReleaseTaken: as for `ReleaseManager.release`.
    """
    store, trusted = release_manager.store, release_manager.trusted
    release_manager.check_may_be_live(model, version)

    def decide(number: int) -> PinRecord | None:
        current = find_pin(store, model, trusted)
        if (
            current
            and not current.by_rollback
            and (current.version, current.until) == (version, until)
        ):
            return None
        return _record(
            release_manager, model, number, "pin", version=version, until=until, reason=reason
        )

    record = append_pin(store, model, decide=decide)
    # After the pin record: this replaces any earlier automatic release, and the pin stops later
    # ones.
    live = store.live_record(model, trusted, allow_joblib=release_manager.allow_joblib)
    if live is not None and live.version == version:
        return PinDecision(record)
    # Marked automatic so that it yields to a pin that another writer made in the meantime.
    released = release_manager.release(model, version=version, reason=reason, automatic=True)
    return PinDecision(record, released)


def unpin(release_manager: ReleaseManager, model: str, *, reason: str) -> PinDecision:
    """Allow automatic releases again.

    Raises:
        PinTaken: as for `pin`.
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
