"""Pure decisions: what belongs to a drop, and what ends it."""

from datetime import UTC, datetime, timedelta

import pytest

from functions.common.storage import StoredObject
from functions.on_data_arrival.drops import (
    Decision,
    Dispatch,
    Skip,
    Wait,
    decide,
    find_drop,
)
from registry.data_names import kind_of

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
QUIET_S = 60.0
LONG_AFTER = 3600.0


def stored(name: str, at_s: float, *, size: int = 8, generation: str = "1") -> StoredObject:
    """Return an object of the model wine, written some seconds after noon."""
    return StoredObject(f"wine/{name}", generation, size, NOON + timedelta(seconds=at_s))


def decision(
    *listed: StoredObject,
    arrived: StoredObject | None = None,
    covered_s: float | None = None,
    now_s: float = LONG_AFTER,
    sweeping: bool = False,
) -> Decision:
    return decide(
        find_drop(listed, "wine/"),
        arrived=arrived,
        covered=None if covered_s is None else NOON + timedelta(seconds=covered_s),
        now=NOON + timedelta(seconds=now_s),
        quiet_s=QUIET_S,
        sweeping=sweeping,
    )


PART = stored("part.csv", 0)
LATER = stored("rest.csv", 10)
SUCCESS = stored("_SUCCESS", 20, size=0)


class TestWhatBelongs:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("_SUCCESS", "success"),
            ("dataset.json", "settings"),
            ("part-00000-1f.c000.snappy.parquet", "data"),
            ("day=1+2.csv", "data"),
            ("part 1.csv", "unsupported"),
            ("part\u00a01.csv", "unsupported"),
            ("\u202epart.csv", "unsupported"),
            ("part\n1.csv", "unsupported"),
            (".part.csv", "unsupported"),
            ("_part.csv", "unsupported"),
            ("p" * 250 + ".csv", "unsupported"),
            ("notes.txt", "other"),
            ("part.CSV", "data"),
            ("folder/part.csv", "other"),
            ("folder/_SUCCESS", "other"),
            ("DATASET.json", "other"),
        ],
    )
    def test_a_path_has_one_kind(self, path: str, kind: str) -> None:
        assert kind_of(path) == kind

    def test_the_newest_object_ends_the_drop(self) -> None:
        listed = [PART, LATER, stored("a b.csv", 30), stored("empty.csv", 40, size=0)]

        drop = find_drop(listed, "wine/")

        assert drop is not None
        assert drop.newest == LATER

    def test_the_marker_comes_last_at_the_same_instant(self) -> None:
        marker = stored("_SUCCESS", 0, size=0)

        drop = find_drop([marker, stored("zzz.csv", 0)], "wine/")

        assert drop is not None
        assert drop.newest == marker


class TestParts:
    def test_the_newest_part_waits_out_the_quiet_time(self) -> None:
        assert decision(PART, LATER, arrived=LATER, now_s=30) == Wait(40)
        assert decision(PART, LATER, arrived=LATER, now_s=70) == Dispatch()

    def test_a_slow_clock_waits_no_longer_than_the_quiet_time(self) -> None:
        assert decision(PART, arrived=PART, now_s=-900) == Wait(QUIET_S)

    def test_an_older_part_leaves_the_drop_to_the_newest_one(self) -> None:
        assert isinstance(decision(PART, LATER, arrived=PART), Skip)

    def test_an_event_without_its_object_acts_for_the_newest(self) -> None:
        assert decision(PART, LATER, arrived=None) == Dispatch()

    def test_covered_data_is_not_dispatched_again(self) -> None:
        assert isinstance(decision(PART, LATER, arrived=LATER, covered_s=10), Skip)
        assert decision(PART, LATER, arrived=LATER, covered_s=9) == Dispatch()

    def test_settings_are_a_part_but_not_data(self) -> None:
        settings = stored("dataset.json", 15)

        assert decision(PART, settings, arrived=settings) == Dispatch()
        assert isinstance(decision(settings, arrived=settings), Skip)


class TestSuccess:
    def test_it_ends_the_drop_at_once(self) -> None:
        assert decision(PART, SUCCESS, arrived=SUCCESS, now_s=20) == Dispatch()

    def test_no_other_event_ends_its_drop(self) -> None:
        assert isinstance(decision(PART, SUCCESS, arrived=PART), Skip)
        assert isinstance(decision(PART, SUCCESS, arrived=None), Skip)

    def test_it_waits_for_its_parts_if_it_comes_first(self) -> None:
        late = stored("part.csv", 25)

        assert decision(SUCCESS, arrived=SUCCESS, now_s=21) == Wait(59)
        assert isinstance(decision(SUCCESS, late, arrived=SUCCESS, now_s=26), Skip)

    def test_it_waits_for_new_parts_if_older_ones_are_dispatched(self) -> None:
        again = stored("_SUCCESS", 1000, size=0, generation="2")

        assert decision(PART, again, arrived=again, covered_s=20, now_s=1001) == Wait(59)
        assert decision(PART, again, arrived=again, covered_s=20, now_s=1060) == Dispatch()

    def test_writing_it_twice_ends_the_drop_once(self) -> None:
        again = stored("_SUCCESS", 20.2, size=0, generation="2")

        assert isinstance(decision(PART, again, arrived=again, covered_s=20), Skip)


class TestSweeps:
    def test_it_finds_lost_drops(self) -> None:
        assert decision(PART, LATER, sweeping=True) == Dispatch()
        assert decision(PART, SUCCESS, sweeping=True) == Dispatch()

    def test_it_ignores_open_and_dispatched_drops(self) -> None:
        assert decision(PART, LATER, sweeping=True, now_s=20) == Wait(50)
        assert isinstance(decision(PART, SUCCESS, sweeping=True, covered_s=20), Skip)
        assert isinstance(decision(sweeping=True), Skip)

    def test_deleting_the_end_of_a_drop_does_not_dispatch_it_again(
        self,
    ) -> None:
        assert isinstance(decision(PART, LATER, sweeping=True, covered_s=20), Skip)
        assert isinstance(decision(PART, sweeping=True, covered_s=10), Skip)
