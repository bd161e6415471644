"""What is live: release a version, or roll back. Needs neither data nor scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from services.common.model_records import (
    Release,
    ReleaseTaken,
    StoreError,
    VersionNotFound,
    VersionRefused,
)
from services.common.model_store import ModelStore, TrustedKeys


class NoVersion(StoreError):
    """There is no version that could go live."""


@dataclass(frozen=True)
class Decision:
    """The live record after a command; `written` is False if the wish was true already."""

    live: Release
    written: bool


@dataclass(frozen=True)
class Promoter:
    """Writes release records of one store, in the name of `by` (user@host)."""

    store: ModelStore
    trusted: TrustedKeys
    by: str

    def release(self, model: str, *, version: str | None = None, reason: str = "") -> Decision:
        """Put a version live, alone: a canary or shadow ends.

        Args:
            version: None for the newest whose gate passed.

        Raises:
            NoVersion: no version has passed.
            VersionNotFound, VersionRefused: there is no such version, it does not hold, or it
                failed its gate.
            ReleaseTaken: somebody else had another wish at the same moment, and was first.
        """
        version = version or self._newest_passed(model)
        return self._append(
            model, version, "release", reason, wish=lambda live: _is_alone(live, version)
        )

    def roll_back(
        self,
        model: str,
        *,
        version: str | None = None,
        judged: int | None = None,
        reason: str = "",
    ) -> Decision:
        """Go back to a version, and end a canary or shadow.

        Args:
            version: None for the newest earlier live version that no rollback has left, so that
                one rollback after another goes further back, never forth.
            judged: number of the release a machine found wanting: nothing is done if it is not
                live, if there is a higher one by the time of writing, or if it is a rollback (what
                ails every version would else lead back to the oldest, step by step).

        Raises:
            NoVersion: there is nothing to go back to.
            VersionNotFound, VersionRefused, ReleaseTaken: as `release`.
        """
        if version is not None:
            return self._append(
                model, version, "rollback", reason, wish=lambda live: _is_alone(live, version)
            )
        leaving = self.store.live_release(model, self.trusted)
        if leaving is None:
            raise NoVersion(f"No version of {model} is live.")
        if judged is not None and (leaving.number != judged or leaving.action == "rollback"):
            return Decision(live=leaving, written=False)
        return self._append(
            model,
            self._way_back(model, leaving),
            "rollback",
            reason,
            wish=lambda live: live.version != leaving.version,
            judged=judged,
        )

    def _append(
        self,
        model: str,
        version: str,
        action: Literal["release", "rollback"],
        reason: str,
        *,
        wish: Callable[[Release], bool],
        judged: int | None = None,
    ) -> Decision:
        """Write the record, unless `wish` is true of what is live or it comes too late."""
        digest = self.store.manifest_sha256(model, version)
        found: list[Release] = []

        def decide(number: int, taken: Release | None) -> Release | None:
            live = self.store.live_release(model, self.trusted)
            late = judged is not None and number != judged + 1
            if live is not None and (late or wish(live)):
                found.append(live)
                return None
            if taken is not None:
                raise ReleaseTaken(taken)
            record = Release(
                number=number,
                previous=number - 1 or None,
                version=version,
                manifest_sha256=digest,
                action=action,
                canary=None,
                shadow=None,
                by=self.by,
                reason=reason,
                time=datetime.now(UTC),
            )
            # What readers would refuse is not written in the first place.
            self.store.open_release(model, record, self.trusted)
            return record

        written = self.store.append_release(model, decide=decide)
        return Decision(live=written or found[0], written=written is not None)

    def _newest_passed(self, model: str) -> str:
        for version in reversed(self.store.list_versions(model)):
            try:
                if self.store.open_version(model, version, self.trusted).gate == "passed":
                    return version
            except (VersionNotFound, VersionRefused):
                continue
        raise NoVersion(f"No version of {model} has passed its gate.")

    def _way_back(self, model: str, leaving: Release) -> str:
        """The newest version that was live before and that no rollback has left."""
        been_live: list[str] = []
        left = {leaving.version}
        latest: set[str] = set()  # the version live so far, and any put live and deleted since
        for number in self.store.list_releases(model):
            try:
                record = self.store.find_release(model, number)
            except VersionRefused:
                continue
            if record is None:
                continue
            if record.action == "rollback":
                left |= latest - {record.version}
            try:
                self.store.open_release(model, record, self.trusted)
            except VersionNotFound:
                latest.add(record.version)
            except VersionRefused:
                continue
            else:
                been_live.append(record.version)
                latest = {record.version}
        for version in reversed(been_live):
            if version not in left:
                return version
        raise NoVersion(f"There is no earlier live version of {model} to go back to.")


def _is_alone(live: Release, version: str) -> bool:
    return live.version == version and live.canary is None and live.shadow is None
