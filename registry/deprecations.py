"""Deprecations: versions that callers should leave by a stated time, the sunset.

Each decision is a record, `<store>/<model>/deprecations/<number>.json`, written once like a
release. The newest record about a version decides. A deprecated version answers as before, even
after its sunset; its answers carry the headers `Deprecation` and `Sunset`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from registry.records import (
    LAST_NUMBER,
    Moment,
    Record,
    StoreError,
    VersionName,
    VersionRefused,
)
from registry.store import ModelStore


class DeprecationRecord(Record):
    """A decision about one version: `deprecate` it, or `undo` its deprecation.

    Args:
        sunset: when it may stop answering; None for `undo`.
    """

    number: int = Field(ge=1, le=LAST_NUMBER)
    action: Literal["deprecate", "undo"]
    version: VersionName
    sunset: Moment | None
    by: str
    reason: str
    time: Moment

    @model_validator(mode="after")
    def _has_a_sunset(self) -> Self:
        if (self.action == "deprecate") != (self.sunset is not None):
            raise ValueError("a deprecation must have a sunset, an undo must not")
        return self


@dataclass(frozen=True)
class Deprecation:
    """A deprecation in force: `since` its first decision, whatever sunset that had."""

    since: datetime
    sunset: datetime
    by: str
    reason: str

    def describe(self) -> str:
        """Return a phrase for messages: `deprecated, sunset 2026-12-31 (ada@lab): reason`."""
        sunset = self.sunset.astimezone(UTC)
        is_midnight = (sunset.hour, sunset.minute, sunset.second) == (0, 0, 0)
        shown = f"{sunset:%Y-%m-%d}" if is_midnight else f"{sunset:%Y-%m-%d %H:%M}Z"
        phrase = f"deprecated, sunset {shown} ({self.by})"
        return f"{phrase}: {self.reason}" if self.reason else phrase


Deprecations = Mapping[str, Deprecation]
"""The deprecations in force, by version."""


class DeprecationTaken(StoreError):
    """Another writer decided about the version first."""

    def __init__(self, winner: DeprecationRecord) -> None:
        done = "deprecated" if winner.action == "deprecate" else "restored"
        super().__init__(f"Version {winner.version} was {done} by {winner.by} in the meantime.")
        self.winner = winner


_record = TypeAdapter(DeprecationRecord)


def decide_deprecations(
    records: Iterable[DeprecationRecord], known: Deprecations | None = None
) -> dict[str, Deprecation]:
    """Return the deprecations in force after further records, oldest first.

    Args:
        known: those in force before.
    """
    in_force = dict(known or {})
    for record in records:
        before = in_force.pop(record.version, None)
        if record.sunset is not None:
            since = before.since if before else record.time
            in_force[record.version] = Deprecation(
                since, record.sunset, record.by, record.reason.strip()
            )
    return in_force


def find_deprecation_record(store: ModelStore, model: str, number: int) -> DeprecationRecord | None:
    """Return the record with that number, or None; one read.

    Raises:
        VersionRefused: the record is malformed.
    """
    return store.find_numbered(model, "deprecations", number, _record)


def find_deprecations(store: ModelStore, model: str) -> dict[str, Deprecation]:
    """Return the deprecations in force of a model; malformed records are skipped."""
    records = []
    for number in store.list_numbers(model, "deprecations"):
        try:
            record = find_deprecation_record(store, model, number)
        except VersionRefused:
            continue
        if record is not None:
            records.append(record)
    return decide_deprecations(records)


def deprecate(
    store: ModelStore,
    model: str,
    *,
    version: str,
    sunset: datetime | None,
    by: str,
    reason: str,
) -> DeprecationRecord | None:
    """Deprecate a version, or change its sunset.

    Args:
        sunset: None to undo the deprecation.

    Returns:
        The record written; None if the version was already in the desired state.

    Raises:
        VersionNotFound: the version does not exist.
        DeprecationTaken: another writer decided otherwise about the version at the same time.
    """
    store.manifest_sha256(model, version)  # raises if it does not exist

    def decide(number: int, winner: DeprecationRecord | None) -> DeprecationRecord | None:
        current = find_deprecations(store, model).get(version)
        if (current.sunset if current else None) == sunset:
            return None
        if winner is not None and winner.version == version:
            raise DeprecationTaken(winner)
        return DeprecationRecord(
            number=number,
            action="undo" if sunset is None else "deprecate",
            version=version,
            sunset=sunset,
            by=by,
            reason=reason,
            time=datetime.now(UTC),
        )

    return store.append_numbered(model, "deprecations", _record, decide=decide)
