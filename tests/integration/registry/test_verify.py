"""Auditing a store: every failure is named, and nothing else."""

from typing import Any

import pytest

from harness.stores import FIRST, SECOND, THIRD, Blob, SignedStore, release
from registry.pinning import pin
from registry.records import RunRecord
from registry.releases import ReleaseManager
from registry.verify import verify_store


@pytest.fixture
def store(signed_store: SignedStore) -> SignedStore:
    """Three versions, released one after the other."""
    for version in (FIRST, SECOND, THIRD):
        signed_store.publish(version)
        signed_store.release(version)
    return signed_store


def failures(signed_store: SignedStore) -> list[str]:
    return verify_store(signed_store.store, signed_store.trusted, report=lambda *_: None).failures


class TestValidStores:
    def test_a_sound_store_has_no_failures_and_everything_is_counted(
        self, store: SignedStore
    ) -> None:
        shares: list[float] = []

        verification = verify_store(
            store.store, store.trusted, report=lambda _, share: shares.append(share)
        )

        assert (verification.checked, verification.failures) == (6, [])
        assert shares == sorted(shares)
        assert shares[-1] == 1

    def test_an_empty_store_is_sound(self, signed_store: SignedStore) -> None:
        assert failures(signed_store) == []

    def test_files_left_by_a_killed_writer_are_not_failures(self, store: SignedStore) -> None:
        store.path(THIRD.replace("3t", "4t"), "model.onnx").write_bytes(b"half")
        store.blob("releases/.00112233445566ff.tmp").write_bytes(b"half")

        assert failures(store) == []


class TestRecords:
    def test_a_record_far_beyond_the_sequence_is_named_but_not_the_gap_before_it(
        self, store: SignedStore
    ) -> None:
        store.record(99_999_999).write_bytes(b"rubbish")

        assert failures(store) == [
            "Release 99999999 of 'wine' is far beyond the sequence and is ignored."
        ]

    def test_pins_and_a_withdrawal_are_part_of_a_store(self, store: SignedStore) -> None:
        release_manager = ReleaseManager(store.store, store.trusted, "ada@lab")
        pin(release_manager, "wine", version=THIRD, until=None, reason="stable")
        store.publish(FIRST, model="beer")
        release_manager.release("beer")
        release_manager.roll_back("beer", expected_release=1)

        assert failures(store) == []

    def test_a_malformed_pin_is_named(self, store: SignedStore) -> None:
        store.blob("pins/00000001.json").write_bytes(b"{}")

        assert failures(store) == ["The record of pin 1 of 'wine' is malformed."]


class TestVersions:
    def test_each_damaged_file_is_named(self, store: SignedStore) -> None:
        store.path(FIRST, "model.onnx").flip_bit()
        store.path(SECOND, "model.onnx").unlink()
        store.path(THIRD, "model.onnx").write_bytes(b"longer")

        assert failures(store) == [
            f"File 'model.onnx' of 'wine' {version} does not match its signed digest."
            for version in (FIRST, SECOND, THIRD)
        ]

    def test_a_bad_signature_is_named_with_the_releases_that_depend_on_it(
        self, store: SignedStore
    ) -> None:
        store.path(SECOND, "manifest.sig").flip_bit()

        assert failures(store) == [
            f"No trusted key signed version {SECOND} of 'wine'.",
            f"Release 2 of 'wine' names version {SECOND}, which is missing or invalid.",
        ]

    def test_a_version_in_the_wrong_folder_is_named(self, store: SignedStore) -> None:
        for name in ("manifest.json", "manifest.sig"):
            store.path(FIRST, name).write_bytes(store.path(SECOND, name).read_bytes())

        expected = f"The manifest of version {FIRST} of 'wine' names another version."
        assert expected in failures(store)

    def test_unsigned_files_are_named(self, store: SignedStore) -> None:
        store.path(FIRST, "model.joblib").write_bytes(b"code")
        store.blob("versions/latest/model.onnx").write_bytes(b"code")

        assert failures(store) == [
            "Unknown file 'versions/latest/model.onnx' in the folder of 'wine'.",
            f"The manifest does not list 'model.joblib' of 'wine' {FIRST}.",
        ]


class TestReleases:
    def test_a_missing_number_is_named(self, store: SignedStore) -> None:
        store.record(2).unlink()

        assert failures(store) == ["Release 2 of 'wine' is missing, but later releases exist."]

    def test_a_malformed_or_misnumbered_record_is_named(self, store: SignedStore) -> None:
        store.record(1).write_bytes(b"rubbish")
        store.record(3).write_bytes(store.record(2).read_bytes())

        assert failures(store) == [
            "The record of release 1 of 'wine' is malformed.",
            "The record of release 3 of 'wine' has another number.",
        ]

    def test_an_inconsistent_record_is_named(self, store: SignedStore) -> None:
        digest = store.store.manifest_sha256("wine", FIRST)
        store.publish("20261124t120000z-00000004", gate="failed")
        unfit: list[dict[str, Any]] = [
            {"previous": 2},
            {"manifest_sha256": "0" * 64},
            {"canary": {"version": "20261124t120000z-00000004", "percent": 5}},
            {"shadow": {"version": "20261125t120000z-00000005"}},
        ]
        for number, changes in enumerate(unfit, start=4):
            record = release(number, FIRST, digest, **changes)
            store.record(number).write_bytes(record.model_dump_json().encode())

        assert failures(store) == [
            "Release 4 of 'wine' names release 2 as the previous one.",
            "Release 5 of 'wine' was made for another manifest.",
            "Release 6 of 'wine' names version 20261124t120000z-00000004, which failed its gate.",
            "Release 7 of 'wine' names version 20261125t120000z-00000005, "
            "which is missing or invalid.",
        ]


class TestOtherFiles:
    def test_files_beside_the_models_are_named(self, store: SignedStore) -> None:
        beside = store.blob("x")
        for name in ("Evil/versions/x", "model.joblib"):
            path = beside.path.replace("wine/x", name)
            Blob(beside.filesystem, path).write_bytes(b"x")

        assert failures(store) == [
            "The store contains 'Evil', which is not a model.",
            "The store contains 'model.joblib', which is not a model.",
        ]

    def test_a_run_record_without_its_version_is_named(self, store: SignedStore) -> None:
        missing = THIRD.replace("3t", "4t")
        store.store.record_run("wine", "sound", RunRecord(version=FIRST))
        store.blob(f"once/{'a' * 64}.json").write_bytes(b"{}")
        store.blob(f"once/{'b' * 64}.json").write_bytes(b'{"version": "%s"}' % missing.encode())

        assert failures(store) == [
            f"A run record of 'wine' is malformed: once/{'a' * 64}.json.",
            f"The run record once/{'b' * 64}.json of 'wine' names version {missing}, "
            "which does not exist.",
        ]
