"""Pins, manual or by rollback, stop automatic releases; on both kinds of store."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.stores import FIRST, SECOND, THIRD, SignedStore, release
from registry.pinning import pin, unpin
from registry.pins import Pinned, PinTaken, decide_pin, find_pin
from registry.records import PinRecord, Release, ReleaseTaken, VersionRefused
from registry.releases import ReleaseManager
from registry.store import ModelStore

NOW = datetime(2026, 11, 26, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture
def store(signed_store: SignedStore) -> SignedStore:
    """Three versions that passed their gates; the second is live as release 2."""
    for version in (FIRST, SECOND, THIRD):
        signed_store.publish(version)
    for version in (FIRST, SECOND):
        signed_store.release(version)
    return signed_store


@pytest.fixture
def release_manager(store: SignedStore) -> ReleaseManager:
    return ReleaseManager(store.store, store.trusted, "ada@lab")


def live(signed_store: SignedStore) -> str | None:
    record = signed_store.store.live_release("wine", signed_store.trusted)
    return record.version if record else None


def written(action: str = "pin", **changes: Any) -> PinRecord:
    fields: dict[str, Any] = {
        "number": 1,
        "action": action,
        "version": FIRST if action == "pin" else None,
        "until": None,
        "release": 5,
        "by": "ada@lab",
        "reason": "stable",
        "time": NOW,
    }
    return PinRecord.model_validate(fields | changes)


def rollback(number: int) -> Release:
    return release(number, SECOND, "0" * 64, action="rollback")


class TestDecision:
    @pytest.mark.parametrize(
        ("pinned", "rolled_back", "expected"),
        [
            (None, None, None),
            (None, rollback(6), SECOND),
            (written(), None, FIRST),
            (written("unpin"), None, None),
            (written(until=NOW + timedelta(seconds=1)), None, FIRST),
            (written(until=NOW), None, None),
            (written(), rollback(6), SECOND),
            (written(), rollback(5), FIRST),
            (written("unpin"), rollback(6), SECOND),
            (written("unpin"), rollback(5), None),
            (written(until=NOW), rollback(5), None),
        ],
    )
    def test_the_newer_of_a_pin_and_a_rollback_decides(
        self, pinned: PinRecord | None, rolled_back: Release | None, expected: str | None
    ) -> None:
        pin_in_force = decide_pin(pinned, rolled_back, now=NOW)

        assert (pin_in_force.version if pin_in_force else None) == expected


class TestPin:
    def test_a_failed_automatic_release_names_the_pins_author_and_reason(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        pin(release_manager, "wine", version=SECOND, until=LATER, reason="audit")

        with pytest.raises(Pinned, match=f"pinned to version {SECOND} .ada@lab.*: audit"):
            release_manager.release("wine", version=THIRD, automatic=True)

        assert live(store) == SECOND
        assert store.store.list_releases("wine") == [1, 2]

    def test_the_pinned_version_goes_live(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        decision = pin(release_manager, "wine", version=FIRST, until=None, reason="stable")

        assert decision.release is not None
        assert (live(store), store.store.list_releases("wine")) == (FIRST, [1, 2, 3])

    def test_a_repeat_writes_nothing_and_another_pin_replaces_it(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        first = pin(release_manager, "wine", version=SECOND, until=None, reason="stable")
        again = pin(release_manager, "wine", version=SECOND, until=None, reason="stable")
        other = pin(release_manager, "wine", version=FIRST, until=None, reason="better")

        assert (first.record is None, again.record is None, other.record is None) == (
            False,
            True,
            False,
        )
        assert store.store.list_pins("wine") == [1, 2]

    def test_a_version_that_may_not_be_live_is_not_pinned(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        failed = "20261125t120000z-00000005"
        store.publish(failed, gate="failed")

        with pytest.raises(VersionRefused):
            pin(release_manager, "wine", version=failed, until=None, reason="x")

        assert store.store.list_pins("wine") == []

    def test_a_manual_release_goes_live_while_pinned(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        pin(release_manager, "wine", version=SECOND, until=None, reason="stable")

        assert release_manager.release("wine", version=THIRD).written
        assert live(store) == THIRD

    def test_unpinning_allows_automatic_releases(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        pin(release_manager, "wine", version=SECOND, until=None, reason="stable")

        assert unpin(release_manager, "wine", reason="done").record is not None
        assert unpin(release_manager, "wine", reason="done").record is None
        release_manager.release("wine", version=THIRD, automatic=True)

        assert live(store) == THIRD

    def test_malformed_pins_are_skipped_and_occupy_their_numbers(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        pin(release_manager, "wine", version=SECOND, until=None, reason="stable")
        for number, content in ((2, b"rubbish"), (3, b"{}"), (99_999_999, b"")):
            store.blob(f"pins/{number:08d}.json").write_bytes(content)

        assert find_pin(store.store, "wine", store.trusted) is not None
        unpinned = unpin(release_manager, "wine", reason="done").record

        assert unpinned is not None
        assert unpinned.number == 4
        assert find_pin(store.store, "wine", store.trusted) is None


class TestRollback:
    def test_a_rollback_pins_until_an_unpin(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        release_manager.roll_back("wine", reason="slow")

        with pytest.raises(Pinned, match=f"pinned to version {FIRST} by a rollback .*: slow"):
            release_manager.release("wine", version=THIRD, automatic=True)
        unpin(release_manager, "wine", reason="mended")

        assert release_manager.release("wine", version=THIRD, automatic=True).written

    def test_a_manual_release_ends_the_pin_of_a_rollback(
        self, release_manager: ReleaseManager
    ) -> None:
        release_manager.roll_back("wine")
        release_manager.release("wine", version=SECOND)

        assert release_manager.release("wine", version=THIRD, automatic=True).written

    def test_a_canary_after_a_rollback_does_not_end_its_pin(
        self, release_manager: ReleaseManager
    ) -> None:
        release_manager.roll_back("wine")
        release_manager.canary("wine", version=THIRD, percent=10)

        with pytest.raises(Pinned):
            release_manager.release("wine", version=THIRD, automatic=True)

    def test_a_rollback_after_an_unpin_pins_again(self, release_manager: ReleaseManager) -> None:
        release_manager.roll_back("wine")
        unpin(release_manager, "wine", reason="mended")
        release_manager.release("wine", version=THIRD)
        release_manager.roll_back("wine")

        with pytest.raises(Pinned):
            release_manager.release("wine", version=THIRD, automatic=True)

    def test_withdrawing_the_first_release_also_pins(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        store.publish(FIRST, model="beer")
        release_manager.release("beer")
        release_manager.roll_back("beer", expected_release=1)

        with pytest.raises(Pinned, match="pinned to no version"):
            release_manager.release("beer", version=FIRST, automatic=True)


class TestRaces:
    @pytest.mark.parametrize("turn", range(3))
    def test_after_concurrent_pins_the_pin_in_force_is_live(
        self, store: SignedStore, turn: int
    ) -> None:
        start = threading.Barrier(2)

        def try_pin(version: str) -> str:
            mine = ReleaseManager(ModelStore(store.url), store.trusted, version)
            start.wait(30)
            try:
                pin(mine, "wine", version=version, until=None, reason="mine")
            except (PinTaken, Pinned):
                return "taken"
            return "pinned"

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(try_pin, (FIRST, SECOND)))

        pinned = find_pin(store.store, "wine", store.trusted)
        assert pinned is not None
        assert "pinned" in outcomes
        assert live(store) == pinned.version

    def test_losing_a_pin_number_shows_the_winner(self, store: SignedStore) -> None:
        rival = ReleaseManager(store.store, store.trusted, "bob@lab")

        class Slow(ModelStore):
            """Another writer pins the model right before the record is written."""

            def _create_numbered(self, model: str, kind: Any, record: Any) -> bool:
                if kind == "pins" and not store.store.list_pins("wine"):
                    pin(rival, "wine", version=FIRST, until=None, reason="mine")
                return super()._create_numbered(model, kind, record)

        late = ReleaseManager(Slow(store.url), store.trusted, "ada@lab")

        with pytest.raises(PinTaken, match=f"pinned to version {FIRST} by bob@lab"):
            pin(late, "wine", version=SECOND, until=None, reason="mine")
        assert live(store) == FIRST

    @pytest.mark.parametrize("turn", range(3))
    def test_a_concurrent_automatic_release_and_pin_leave_the_pinned_version_live(
        self, store: SignedStore, turn: int
    ) -> None:
        start = threading.Barrier(2)

        def run(work: Callable[[ReleaseManager], object]) -> None:
            mine = ReleaseManager(ModelStore(store.url), store.trusted, "racer")
            start.wait(30)
            try:
                work(mine)
            except Pinned:
                return

        with ThreadPoolExecutor(2) as pool:
            automatic = pool.submit(
                run, lambda mine: mine.release("wine", version=THIRD, automatic=True)
            )
            pinning = pool.submit(
                run, lambda mine: pin(mine, "wine", version=SECOND, until=None, reason="stable")
            )
            automatic.result()
            pinning.result()

        assert live(store) == SECOND

    def test_a_pin_written_during_a_release_undoes_the_release(
        self, store: SignedStore, release_manager: ReleaseManager
    ) -> None:
        looked: list[int] = []

        class Overtaken(ModelStore):
            """Another writer pins the model right before the record is written."""

            def _create_numbered(self, model: str, kind: Any, record: Any) -> bool:
                if kind == "releases" and not looked:
                    looked.append(record.number)
                    pin(release_manager, "wine", version=SECOND, until=None, reason="stable")
                return super()._create_numbered(model, kind, record)

        late = ReleaseManager(Overtaken(store.url), store.trusted, "trainer")

        with pytest.raises(Pinned):
            late.release("wine", version=THIRD, automatic=True)

        record = store.store.find_release("wine", 4)
        assert record is not None
        assert (live(store), record.action) == (SECOND, "rollback")

    @pytest.mark.parametrize("winner", ["release", "rollback"])
    def test_a_rollback_that_a_release_overtakes_fails_instead_of_pinning_nothing(
        self, store: SignedStore, release_manager: ReleaseManager, winner: str
    ) -> None:
        looked: list[int] = []

        class Overtaken(ModelStore):
            """Another writer has the number of the rollback."""

            def _create_numbered(self, model: str, kind: Any, record: Any) -> bool:
                if not looked:
                    looked.append(record.number)
                    if winner == "release":
                        release_manager.release("wine", version=THIRD, automatic=True)
                    else:
                        release_manager.roll_back("wine")
                return super()._create_numbered(model, kind, record)

        late = ReleaseManager(Overtaken(store.url), store.trusted, "eve@desk")

        if winner == "release":
            with pytest.raises(ReleaseTaken, match=f"release of version {THIRD}"):
                late.roll_back("wine", reason="slow")
        else:
            assert not late.roll_back("wine", reason="slow").written
        assert live(store) == (THIRD if winner == "release" else FIRST)
