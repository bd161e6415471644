"""What is live: release a version, try one beside it, or roll back.

A canary answers some of the callers, a shadow is computed and compared but never answers. Both are
fields of the release record: each record is the whole state, so the records of `canary` and
`shadow` keep the live version and the respective other field.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from services.common.model_records import (
    Canary,
    Label,
    Manifest,
    Release,
    ReleaseTaken,
    Shadow,
    StoreError,
    VersionNotFound,
    VersionRefused,
)
from services.common.model_store import ModelStore, TrustedKeys


class NoVersion(StoreError):
    """There is no version that could go live."""


class AlreadyLive(StoreError):
    """The version answers all requests as it is; it cannot be tried beside itself."""


class _State(NamedTuple):
    """What a record says is served."""

    version: str
    canary: Canary | None = None
    shadow: Shadow | None = None

    @classmethod
    def of(cls, release: Release) -> "_State":
        return cls(release.version, release.canary, release.shadow)


def check_fits_beside(candidate: Manifest, live: Manifest) -> None:
    """Check that a version may be served, takes the rows of the live one, and gives its classes.

    Raises:
        VersionRefused: it failed its gate, or its task, columns or classes are others.
    """
    what = f"The version {candidate.version} of {candidate.model}"
    if candidate.gate == "failed":
        raise VersionRefused(f"{what} failed its gate.", reason="gate")
    ours, theirs = candidate.signature, live.signature
    if (ours.task, ours.columns) != (theirs.task, theirs.columns):
        raise VersionRefused(f"{what} takes other columns than the live one.", reason="columns")
    if _typed(ours.classes) != _typed(theirs.classes):
        raise VersionRefused(f"{what} has other classes than the live one.", reason="classes")


def _typed(classes: list[Label] | None) -> list[tuple[type, Label]]:
    """The classes with their types: to Python, 1 is True."""
    return [(type(label), label) for label in classes or []]


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
        alone = _State(version or self._newest_passed(model))
        return self._append(model, "release", reason, state=lambda _: alone)

    def canary(
        self, model: str, *, version: str | None, percent: float = 0.0, reason: str = ""
    ) -> Decision:
        """Have a version answer `percent` of the callers; a shadow of that version ends.

        Args:
            version: None ends the canary.
            percent: above 0, at most 100.

        Raises:
            NoVersion: no version is live.
            AlreadyLive: the version is the live one.
            VersionNotFound, VersionRefused: there is no such version, it does not hold, failed its
                gate, or has other columns or classes than the live one.
            ReleaseTaken: as `release`.
        """

        def state(live: Release | None) -> _State:
            live = self._tried_beside(model, live, version)
            shadow = None if live.shadow and live.shadow.version == version else live.shadow
            canary = Canary(version=version, percent=percent) if version else None
            return _State(live.version, canary, shadow)

        return self._append(model, "canary", reason, state=state)

    def shadow(self, model: str, *, version: str | None, reason: str = "") -> Decision:
        """Have a version computed unseen beside the live one; a canary of that version ends.

        Args:
            version: None ends the shadow.

        Raises:
            NoVersion, AlreadyLive, VersionNotFound, VersionRefused, ReleaseTaken: as `canary`.
        """

        def state(live: Release | None) -> _State:
            live = self._tried_beside(model, live, version)
            canary = None if live.canary and live.canary.version == version else live.canary
            shadow = Shadow(version=version) if version else None
            return _State(live.version, canary, shadow)

        return self._append(model, "shadow", reason, state=state)

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
                ails every version would else lead back to the oldest, step by step). If it began
                or changed a canary or shadow, that ends and the live version stays.

        Raises:
            NoVersion: there is nothing to go back to.
            VersionNotFound, VersionRefused, ReleaseTaken: as `release`.
        """
        if version is not None:
            alone = _State(version)
            return self._append(model, "rollback", reason, state=lambda _: alone)
        leaving = self.store.live_release(model, self.trusted)
        if leaving is None:
            raise NoVersion(f"No version of {model} is live.")
        if judged is not None and (leaving.number != judged or leaving.action == "rollback"):
            return Decision(live=leaving, written=False)
        tried = judged is not None and leaving.action in ("canary", "shadow")
        back = _State(leaving.version if tried else self._way_back(model, leaving))

        def state(live: Release | None) -> _State:
            """Whoever has already left the version did what was wished."""
            if live is not None and not tried and live.version != leaving.version:
                return _State.of(live)
            return back

        return self._append(model, "rollback", reason, state=state, judged=judged)

    def _append(
        self,
        model: str,
        action: Literal["release", "canary", "shadow", "rollback"],
        reason: str,
        *,
        state: Callable[[Release | None], _State],
        judged: int | None = None,
    ) -> Decision:
        """Write a record, unless what is live is as wished already or it comes too late.

        Args:
            state: what is wished for, given what is live.
        """
        found: list[Release] = []

        def decide(number: int, taken: Release | None) -> Release | None:
            live = self.store.live_release(model, self.trusted)
            late = judged is not None and number != judged + 1
            wished = state(live)
            if live is not None and (late or wished == _State.of(live)):
                found.append(live)
                return None
            if taken is not None:
                raise ReleaseTaken(taken)
            record = Release(
                number=number,
                previous=number - 1 or None,
                version=wished.version,
                manifest_sha256=self.store.manifest_sha256(model, wished.version),
                action=action,
                canary=wished.canary,
                shadow=wished.shadow,
                by=self.by,
                reason=reason,
                time=datetime.now(UTC),
            )
            # What readers would refuse is not written in the first place.
            self.store.open_release(model, record, self.trusted)
            return record

        written = self.store.append_release(model, decide=decide)
        return Decision(live=written or found[0], written=written is not None)

    def _tried_beside(self, model: str, live: Release | None, version: str | None) -> Release:
        """What is live, once it is clear that `version` (None: nothing) fits beside it."""
        if live is None:
            raise NoVersion(f"No version of {model} is live.")
        if version == live.version:
            raise AlreadyLive(f"The version {version} of {model} is live already.")
        if version is not None:
            candidate = self.store.open_version(model, version, self.trusted)
            check_fits_beside(candidate, self.store.open_release(model, live, self.trusted))
        return live

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
