"""What is live: release a version, try one beside it, or roll back.

A canary answers some of the callers, a shadow is computed and compared but never answers. Both are
fields of the release record: each record is the whole state, so the records of `canary` and
`shadow` keep the live version and the respective other field.

A release may be automatic (after a training) or by hand. While a model is pinned, automatic ones
are held back (see `model_pins`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from services.common.model_pins import Pinned, find_pin
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
    Withdrawal,
)
from services.common.model_store import ModelStore, ReleaseRecord, TrustedKeys


class NoVersion(StoreError):
    """There is no version that could go live."""


class AlreadyLive(StoreError):
    """The version answers all requests as it is; it cannot be tried beside itself."""


class _State(NamedTuple):
    """What a record says is served; without a version nothing is."""

    version: str | None
    canary: Canary | None = None
    shadow: Shadow | None = None

    @classmethod
    def of(cls, record: ReleaseRecord) -> "_State":
        return cls(record.version, record.canary, record.shadow)


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
    """The live record after a command; `written` is False if its goal was met already."""

    live: ReleaseRecord
    written: bool


@dataclass(frozen=True)
class Promoter:
    """Writes release records of one store, in the name of `by` (user@host).

    Args:
        allow_joblib: whether inference serves pickles; if not, no such version is released.
    """

    store: ModelStore
    trusted: TrustedKeys
    by: str
    allow_joblib: bool = True

    def release(
        self,
        model: str,
        *,
        version: str | None = None,
        reason: str = "",
        automatic: bool = False,
    ) -> Decision:
        """Put a version live, alone: a canary or shadow ends.

        Args:
            version: None for the newest whose gate passed.
            automatic: whether a pin holds it back.

        Raises:
            NoVersion: no version has passed.
            Pinned: it is automatic, and the model is pinned.
            VersionNotFound, VersionRefused: there is no such version, it does not verify, it
                failed its gate, or inference would refuse it.
            ReleaseTaken: another writer released something else at the same moment.
        """
        alone = _State(version or self._newest_passed(model))

        def state(_: ReleaseRecord | None) -> _State:
            if automatic:
                self._check_not_pinned(model, alone.version)
            return alone

        decision = self._append(model, "release", reason, state=state)
        if automatic and decision.written:
            self._step_back_if_pinned(model, decision)
        return decision

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

        def state(live: ReleaseRecord | None) -> _State:
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

        def state(live: ReleaseRecord | None) -> _State:
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
        """Go back to a version, and end a canary or shadow. Automatic releases are held back.

        Args:
            version: None for the newest earlier live version that no rollback has left, so that
                one rollback after another goes further back, never forth.
            judged: number of the release that a check found bad: nothing is done if it is not
                live, if there is a higher one by the time of writing, or if it is a rollback (a
                fault of every version would else lead back to the oldest, step by step). If it
                began or changed a canary or shadow, that ends and the live version stays. If there
                is no earlier version to go back to, no version is live afterwards.

        Raises:
            NoVersion: there is nothing to go back to.
            VersionNotFound, VersionRefused, ReleaseTaken: as `release`.
        """
        if version is not None:
            alone = _State(version)
            return self._append(model, "rollback", reason, state=lambda _: alone)
        leaving = self.store.live_record(model, self.trusted, allow_joblib=self.allow_joblib)
        if leaving is None:
            raise NoVersion(f"No version of {model} is live.")
        if judged is not None and (leaving.number != judged or leaving.action == "rollback"):
            return Decision(live=leaving, written=False)
        if isinstance(leaving, Withdrawal):
            raise NoVersion(f"No version of {model} is live.")
        tried = judged is not None and leaving.action in ("canary", "shadow")
        if tried:
            back = _State(leaving.version)
        else:
            back = _State(self._rollback_target(model, leaving, may_be_none=judged is not None))

        def state(live: ReleaseRecord | None) -> _State:
            """If a rollback has left the version already, the goal is met.

            A release that did so is no rollback, and holds nothing back: a person decides again.
            """
            if live is not None and not tried and live.version != leaving.version:
                if judged is None and live.action != "rollback":
                    raise ReleaseTaken(live)
                return _State.of(live)
            return back

        return self._append(model, "rollback", reason, state=state, judged=judged)

    def _append(
        self,
        model: str,
        action: Literal["release", "canary", "shadow", "rollback"],
        reason: str,
        *,
        state: Callable[[ReleaseRecord | None], _State],
        judged: int | None = None,
    ) -> Decision:
        """Write a record, unless what is live is as wanted already or it comes too late.

        Args:
            state: what is wanted, given what is live.
        """
        found: list[ReleaseRecord] = []

        def decide(number: int, taken: ReleaseRecord | None) -> ReleaseRecord | None:
            live = self.store.live_record(model, self.trusted, allow_joblib=self.allow_joblib)
            late = judged is not None and number != judged + 1
            wished = state(live)
            if live is not None and (late or wished == _State.of(live)):
                found.append(live)
                return None
            if taken is not None:
                raise ReleaseTaken(taken)
            return self._record(model, number, wished, action, reason)

        written = self.store.append_release(model, decide=decide)
        return Decision(live=written or found[0], written=written is not None)

    def _record(
        self,
        model: str,
        number: int,
        state: _State,
        action: Literal["release", "canary", "shadow", "rollback"],
        reason: str,
    ) -> ReleaseRecord:
        """A record that readers will not refuse; what they would refuse is not written.

        Raises:
            VersionNotFound, VersionRefused: its version may not be live.
        """
        common = {"by": self.by, "reason": reason, "time": datetime.now(UTC)}
        previous = number - 1 or None
        if state.version is None:
            return Withdrawal.model_validate(
                {"number": number, "previous": previous, "action": action, **common}
                | dict.fromkeys(("version", "manifest_sha256", "canary", "shadow"))
            )
        record = Release.model_validate(
            {
                "number": number,
                "previous": previous,
                "version": state.version,
                "manifest_sha256": self.store.manifest_sha256(model, state.version),
                "action": action,
                "canary": state.canary,
                "shadow": state.shadow,
                **common,
            }
        )
        self._check_serving(self.store.open_release(model, record, self.trusted))
        if state.canary is not None:
            canary = self.store.open_version(model, state.canary.version, self.trusted)
            self._check_serving(canary)
        return record

    def check_may_be_live(self, model: str, version: str) -> None:
        """Raise VersionNotFound or VersionRefused if a version may not be live."""
        manifest = self.store.open_version(model, version, self.trusted)
        if manifest.gate == "failed":
            raise VersionRefused(
                f"The version {version} of {model} failed its gate.", reason="gate"
            )
        self._check_serving(manifest)

    def _check_serving(self, manifest: Manifest) -> None:
        """Raise VersionRefused if inference would refuse a version for being a pickle."""
        if manifest.serving == "joblib" and not self.allow_joblib:
            raise VersionRefused(
                f"Version {manifest.version} of {manifest.model} is refused by inference: joblib "
                "not allowed. It has no ONNX form; to serve it, set INFERENCE_ALLOW_JOBLIB and "
                "TRAINER_ALLOW_JOBLIB to true.",
                reason="joblib",
            )

    def _check_not_pinned(self, model: str, version: str | None) -> None:
        pin = find_pin(self.store, model, self.trusted)
        if pin is not None and pin.version != version:
            raise Pinned(model, pin)

    def _step_back_if_pinned(self, model: str, decision: Decision) -> None:
        """Take an automatic release back if the model was pinned while it was being written.

        A pin that is written later sees the release, and puts its own version live.
        """
        pin = find_pin(self.store, model, self.trusted)
        if pin is None or pin.version in (None, decision.live.version):
            return
        back, number = _State(pin.version), decision.live.number
        reason = f"pinned by {pin.by} in the meantime"
        self._append(model, "rollback", reason, state=lambda _: back, judged=number)
        raise Pinned(model, pin)

    def _tried_beside(self, model: str, live: ReleaseRecord | None, version: str | None) -> Release:
        """What is live, once it is clear that `version` (None: nothing) fits beside it."""
        if not isinstance(live, Release):
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

    def _rollback_target(self, model: str, leaving: Release, *, may_be_none: bool) -> str | None:
        """The newest version that was live before and that no rollback has left.

        Raises:
            NoVersion: there is none, though `may_be_none` is False.
        """
        been_live: list[str] = []
        left: set[str | None] = {leaving.version}
        latest: set[str] = set()  # the version live so far, and any put live and deleted since
        for number in self.store.list_releases(model):
            try:
                record = self.store.find_record(model, number)
            except VersionRefused:
                continue
            if record is None:
                continue
            if record.action == "rollback":
                left |= latest - {record.version}
            if isinstance(record, Withdrawal):
                latest = set()
                continue
            try:
                manifest = self.store.open_release(model, record, self.trusted)
            except VersionNotFound:
                latest.add(record.version)
            except VersionRefused:
                continue
            else:
                if manifest.serving != "joblib" or self.allow_joblib:
                    been_live.append(record.version)
                    latest = {record.version}
        for version in reversed(been_live):
            if version not in left:
                return version
        if may_be_none:
            return None
        raise NoVersion(
            f"There is no earlier live version of {model} to go back to. To have no version live: "
            f"tollgate models withdraw {model} --release {leaving.number}."
        )
