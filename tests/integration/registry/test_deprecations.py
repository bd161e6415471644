"""Deprecations of versions: what decides, what writers refuse, and what is verified."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.stores import FIRST, SECOND, SignedStore
from registry.deprecations import (
    DeprecationRecord,
    DeprecationTaken,
    decide_deprecations,
    deprecate,
    find_deprecations,
)
from registry.records import VersionNotFound
from registry.store import ModelStore
from registry.verify import verify_store

SUNSET = datetime(2999, 1, 31, tzinfo=UTC)
LATER = SUNSET + timedelta(days=30)
NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def store(signed_store: SignedStore) -> SignedStore:
    """Two versions that passed their gates."""
    signed_store.publish(FIRST)
    signed_store.publish(SECOND)
    return signed_store


def written(number: int, version: str, sunset: datetime | None, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "number": number,
        "action": "deprecate" if sunset else "undo",
        "version": version,
        "sunset": sunset,
        "by": "ada@lab",
        "reason": "",
        "time": NOW + timedelta(days=number),
    }
    return DeprecationRecord.model_validate(fields | changes)


def change(store: ModelStore, version: str, sunset: datetime | None, by: str = "ada@lab") -> Any:
    return deprecate(store, "wine", version=version, sunset=sunset, by=by, reason="old")


def test_the_newest_record_about_a_version_decides_and_the_first_dates_it() -> None:
    in_force = decide_deprecations(
        [written(1, FIRST, SUNSET), written(2, SECOND, SUNSET), written(3, FIRST, LATER)]
    )
    later = decide_deprecations([written(4, SECOND, None)], in_force)

    assert set(in_force) == {FIRST, SECOND}
    assert (in_force[FIRST].since, in_force[FIRST].sunset) == (NOW + timedelta(days=1), LATER)
    assert set(later) == {FIRST}


def test_a_deprecation_is_written_once_and_undone_once(store: SignedStore) -> None:
    first, again = change(store.store, FIRST, SUNSET), change(store.store, FIRST, SUNSET)
    in_force = find_deprecations(store.store, "wine")
    undone, undone_again = change(store.store, FIRST, None), change(store.store, FIRST, None)

    assert (first.number, again) == (1, None)
    assert in_force[FIRST].sunset == SUNSET
    assert (undone.number, undone_again) == (2, None)
    assert find_deprecations(store.store, "wine") == {}


def test_an_unknown_version_is_refused_and_nothing_is_written(store: SignedStore) -> None:
    with pytest.raises(VersionNotFound):
        change(store.store, "20260101t000000z-00000000", SUNSET)

    assert store.store.list_numbers("wine", "deprecations") == []


@pytest.mark.parametrize("rival_version", [FIRST, SECOND])
def test_a_writer_that_loses_its_number_fails_only_if_the_other_decided_about_its_version(
    store: SignedStore, rival_version: str
) -> None:
    class Slow(ModelStore):
        """Another writer takes the number right before the record is written."""

        def _create_numbered(self, model: str, kind: Any, record: Any) -> bool:
            if not store.store.list_numbers("wine", "deprecations"):
                change(store.store, rival_version, LATER, by="bob@lab")
            return super()._create_numbered(model, kind, record)

    late = Slow(store.url)

    if rival_version == FIRST:
        with pytest.raises(DeprecationTaken, match=f"{FIRST} was deprecated by bob@lab"):
            change(late, FIRST, SUNSET)
    else:
        change(late, FIRST, SUNSET)
    expected = {rival_version: LATER} if rival_version == FIRST else {FIRST: SUNSET, SECOND: LATER}
    in_force = find_deprecations(store.store, "wine")
    assert {version: each.sunset for version, each in in_force.items()} == expected


def test_a_malformed_record_blocks_nothing_and_is_reported(store: SignedStore) -> None:
    store.blob("deprecations/00000001.json").write_bytes(b"{rubbish")
    change(store.store, FIRST, SUNSET)
    store.path(SECOND, "manifest.sig").unlink()
    store.blob("deprecations/00000003.json").write_bytes(
        written(3, SECOND, SUNSET).model_dump_json().encode()
    )

    found = verify_store(store.store, store.trusted, report=lambda doing, share: None)

    assert set(find_deprecations(store.store, "wine")) == {FIRST, SECOND}
    assert "The record of deprecation 1 of 'wine' is malformed." in found.failures
    missing = f"Deprecation 3 of 'wine' names version {SECOND}, which does not exist."
    assert missing in found.failures
    assert not [each for each in found.failures if "Unknown file" in each]
