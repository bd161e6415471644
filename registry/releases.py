"""Decide what is live: release a version, start a canary or shadow, or roll back.

A canary answers a share of the callers. A shadow is computed and compared but never answers. Both
are fields of the release record. Each record contains the whole state, so a `canary` record repeats
the live version and the shadow, and a `shadow` record repeats the live version and the canary.

A release is either automatic (after training) or manual. While a model is pinned, there are no
automatic releases (see `registry.pins`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from registry.keys import TrustedKeys
from registry.pins import Pinned, find_pin
from registry.records import (
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
from registry.store import ModelStore, ReleaseRecord


class NoVersion(StoreError):
    """No version can go live."""


class AlreadyLive(StoreError):
    """The live version cannot also be its own canary or shadow."""


class _State(NamedTuple):
    """The serving state that a record describes; without a version, nothing is served."""

    version: str | None
    canary: Canary | None = None
    shadow: Shadow | None = None

    @classmethod
    def of(cls, record: ReleaseRecord) -> "_State":
        return cls(record.version, record.canary, record.shadow)


def check_fits_beside(candidate: Manifest, live: Manifest) -> None:
    """Check that a version can run beside the live one: same task, columns and classes.

    Raises:
        VersionRefused: the version failed its gate, or its task, columns or classes differ.
    """
    name = f"Version {candidate.version} of '{candidate.model}'"
    if candidate.gate == "failed":
        raise VersionRefused(f"{name} failed its gate.", reason="gate")
    ours, theirs = candidate.signature, live.signature
    if (ours.task, ours.columns) != (theirs.task, theirs.columns):
        raise VersionRefused(f"{name} has different columns from the live one.", reason="columns")
    if _typed(ours.classes) != _typed(theirs.classes):
        raise VersionRefused(f"{name} has different classes from the live one.", reason="classes")


def _typed(classes: list[Label] | None) -> list[tuple[type, Label]]:
    """Return the classes with their types, because `1 == True` in Python."""
    return [(type(label), label) for label in classes or []]


@dataclass(frozen=True)
class Decision:
    """The live record after a command; `written` is False if there was nothing to do."""

    live: ReleaseRecord
    written: bool


@dataclass(frozen=True)
class ReleaseManager:
    """Writes the release records of one store on behalf of `by` (user@host).

    Args:
        allow_joblib: whether inference serves pickles; if not, a pickled version is not released.
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
        """Make a version live, ending any canary or shadow.

        Args:
            version: None for the newest version that passed its gate.
            automatic: whether a pin prevents the release.

        Raises:
            NoVersion: no version has passed its gate.
            Pinned: the release is automatic and the model is pinned.
            VersionNotFound, VersionRefused: the version does not exist, fails verification, failed
                its gate, or would be refused by inference.
            ReleaseTaken: another writer released a different version at the same time.
        """
        target = _State(version or self._newest_passed(model))

        def state(_: ReleaseRecord | None) -> _State:
            if automatic:
                self._check_not_pinned(model, target.version)
            return target

        decision = self._append(model, "release", reason, state=state)
        if automatic and decision.written:
            self._step_back_if_pinned(model, decision)
        return decision

    def canary(
        self, model: str, *, version: str | None, percent: float = 0.0, reason: str = ""
    ) -> Decision:
        """Let a version answer `percent` of the callers; if it is the shadow, the shadow ends.

        Args:
            version: None ends the canary.
            percent: above 0, at most 100.

        Raises:
            NoVersion: no version is live.
            AlreadyLive: the version is the live one.
            VersionNotFound, VersionRefused: the version does not exist, fails verification, failed
                its gate, or has different columns or classes from the live one.
            ReleaseTaken: as for `release`.
        """

        def state(live: ReleaseRecord | None) -> _State:
            live = self._check_beside(model, live, version)
            shadow = None if live.shadow and live.shadow.version == version else live.shadow
            canary = Canary(version=version, percent=percent) if version else None
            return _State(live.version, canary, shadow)

        return self._append(model, "canary", reason, state=state)

    def shadow(self, model: str, *, version: str | None, reason: str = "") -> Decision:
        """Run a version as a shadow of the live one; if it is the canary, the canary ends.

        Args:
            version: None ends the shadow.

        Raises:
            NoVersion, AlreadyLive, VersionNotFound, VersionRefused, ReleaseTaken: as for `canary`.
        """

        def state(live: ReleaseRecord | None) -> _State:
            live = self._check_beside(model, live, version)
            canary = None if live.canary and live.canary.version == version else live.canary
            shadow = Shadow(version=version) if version else None
            return _State(live.version, canary, shadow)

        return self._append(model, "shadow", reason, state=state)

    def roll_back(
        self,
        model: str,
        *,
        version: str | None = None,
        expected_release: int | None = None,
        reason: str = "",
    ) -> Decision:
        """Roll back to a version, ending any canary or shadow; this pins the model.

        Args:
            version: None for the newest earlier live version that has not been rolled back, so
                repeated rollbacks go further back, never forward.
            expected_release: number of the release that a check found faulty. Nothing happens if
                that release is not live, if a newer one exists when the record is written, or if
                it is itself a rollback (otherwise a fault shared by every version would step back
                to the oldest one). If it started or changed a canary or shadow, that ends and the
                live version stays. If there is no earlier version, no version is live afterwards.

        Raises:
            NoVersion: there is no version to roll back to.
            VersionNotFound, VersionRefused, ReleaseTaken: as for `release`.
        """
        if version is not None:
            target = _State(version)
            return self._append(model, "rollback", reason, state=lambda _: target)
        current = self.store.live_record(model, self.trusted, allow_joblib=self.allow_joblib)
        if current is None:
            raise NoVersion(f"No version of '{model}' is live.")
        if expected_release is not None and (
            current.number != expected_release or current.action == "rollback"
        ):
            return Decision(live=current, written=False)
        if isinstance(current, Withdrawal):
            raise NoVersion(f"No version of '{model}' is live.")
        ends_trial = expected_release is not None and current.action in ("canary", "shadow")
        if ends_trial:
            target = _State(current.version)
        else:
            target = _State(
                self._rollback_target(model, current, may_be_none=expected_release is not None)
            )

        def state(live: ReleaseRecord | None) -> _State:
            """Return the target, or the current state if a rollback has already left the version.

            A release that left it is not a rollback and sets no pin, so a person must decide again.
            """
            if live is not None and not ends_trial and live.version != current.version:
                if expected_release is None and live.action != "rollback":
                    raise ReleaseTaken(live)
                return _State.of(live)
            return target

        return self._append(
            model, "rollback", reason, state=state, expected_release=expected_release
        )

    def _append(
        self,
        model: str,
        action: Literal["release", "canary", "shadow", "rollback"],
        reason: str,
        *,
        state: Callable[[ReleaseRecord | None], _State],
        expected_release: int | None = None,
    ) -> Decision:
        """Write a record unless the live state is already the desired one, or it is too late.

        Args:
            state: returns the desired state, given the live record.
            expected_release: write only directly after this release.
        """
        unchanged: list[ReleaseRecord] = []

        def decide(number: int, winner: ReleaseRecord | None) -> ReleaseRecord | None:
            live = self.store.live_record(model, self.trusted, allow_joblib=self.allow_joblib)
            is_late = expected_release is not None and number != expected_release + 1
            desired = state(live)
            if live is not None and (is_late or desired == _State.of(live)):
                unchanged.append(live)
                return None
            if winner is not None:
                raise ReleaseTaken(winner)
            return self._record(model, number, desired, action, reason)

        written = self.store.append_release(model, decide=decide)
        return Decision(live=written or unchanged[0], written=written is not None)

    def _record(
        self,
        model: str,
        number: int,
        state: _State,
        action: Literal["release", "canary", "shadow", "rollback"],
        reason: str,
    ) -> ReleaseRecord:
        """Return a release record that readers will accept.

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
            raise VersionRefused(f"Version {version} of '{model}' failed its gate.", reason="gate")
        self._check_serving(manifest)

    def _check_serving(self, manifest: Manifest) -> None:
        """Raise VersionRefused if inference would refuse a version because it is a pickle."""
        if manifest.serving == "joblib" and not self.allow_joblib:
            raise VersionRefused(
                f"Version {manifest.version} of '{manifest.model}' is refused by inference: joblib "
                "not allowed. It has no ONNX form; to serve it, set INFERENCE_ALLOW_JOBLIB and "
                "TRAINER_ALLOW_JOBLIB to true.",
                reason="joblib",
            )

    def _check_not_pinned(self, model: str, version: str | None) -> None:
        pin = find_pin(self.store, model, self.trusted)
        if pin is not None and pin.version != version:
            raise Pinned(model, pin)

    def _step_back_if_pinned(self, model: str, decision: Decision) -> None:
        """Undo an automatic release if the model was pinned while it was being written.

        A pin written after the release sees it and makes its own version live.
        """
        pin = find_pin(self.store, model, self.trusted)
        if pin is None or pin.version in (None, decision.live.version):
            return
        target, number = _State(pin.version), decision.live.number
        reason = f"pinned by {pin.by} in the meantime"
        self._append(model, "rollback", reason, state=lambda _: target, expected_release=number)
        raise Pinned(model, pin)

    def _check_beside(self, model: str, live: ReleaseRecord | None, version: str | None) -> Release:
        """Return the live release after checking that `version`, if any, can run beside it."""
        if not isinstance(live, Release):
            raise NoVersion(f"No version of '{model}' is live.")
        if version == live.version:
            raise AlreadyLive(f"Version {version} of '{model}' is already live.")
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
        raise NoVersion(f"No version of '{model}' has passed its gate.")

    def _rollback_target(self, model: str, current: Release, *, may_be_none: bool) -> str | None:
        """Return the newest earlier live version that has not been rolled back.

        Raises:
            NoVersion: there is no such version, and `may_be_none` is False.
        """
        been_live: list[str] = []
        abandoned: set[str | None] = {current.version}
        live_now: set[str] = set()  # the version live at this point, and any released then deleted
        for number in self.store.list_releases(model):
            try:
                record = self.store.find_record(model, number)
            except VersionRefused:
                continue
            if record is None:
                continue
            if record.action == "rollback":
                abandoned |= live_now - {record.version}
            if isinstance(record, Withdrawal):
                live_now = set()
                continue
            try:
                manifest = self.store.open_release(model, record, self.trusted)
            except VersionNotFound:
                live_now.add(record.version)
            except VersionRefused:
                continue
            else:
                if manifest.serving != "joblib" or self.allow_joblib:
                    been_live.append(record.version)
                    live_now = {record.version}
        for version in reversed(been_live):
            if version not in abandoned:
                return version
        if may_be_none:
            return None
        raise NoVersion(
            f"There is no earlier version of '{model}' to roll back to. To take it offline, run "
            f"`tollgate models withdraw {model} --release {current.number}`."
        )
