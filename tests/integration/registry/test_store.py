"""The model store in a folder and in a bucket: what is written, read back, and refused."""

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from harness.stores import FIRST, SECOND, THIRD, Blob, SignedStore, manifest, release
from registry.keys import TrustedKeys
from registry.records import (
    LAST_NUMBER,
    MAX_GAP,
    Release,
    ReleaseTaken,
    RunRecord,
    StoreError,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
    is_model_name,
    new_version_name,
    next_number,
    split_sequence,
)

UNSAFE_NAMES = [
    *("../x", "a/b", "", "A", ".a", "a..b", "a\nb", "a" * 65, "é", "*", "a#1", "a" * 1_000_000),
    *("%2e%2e", "gs://evil/x", "http://169.254.169.254"),
]


class TestVersions:
    def test_a_published_version_is_read_back_as_it_was(self, signed_store: SignedStore) -> None:
        published = signed_store.publish()

        found = signed_store.store.open_version("wine", FIRST, signed_store.trusted)

        assert found == published
        assert signed_store.store.read_file(found, "model.onnx") == b"onnx"
        raw = signed_store.path(FIRST, "manifest.json").read_bytes()
        assert signed_store.store.manifest_sha256("wine", FIRST) == hashlib.sha256(raw).hexdigest()

    @pytest.mark.parametrize("classes", [[False, True], [0, 1], ["0", "1"]])
    def test_classes_keep_their_types(self, signed_store: SignedStore, classes: list[Any]) -> None:
        signature = manifest(FIRST).signature.model_copy(update={"classes": classes})
        signed_store.publish(signature=signature)

        found = signed_store.store.open_version(
            "wine", FIRST, signed_store.trusted
        ).signature.classes

        assert found is not None
        assert [(type(label), label) for label in found] == [(type(c), c) for c in classes]

    def test_versions_are_listed_oldest_first_and_only_when_complete(
        self, signed_store: SignedStore
    ) -> None:
        for version in (THIRD, FIRST, SECOND):
            signed_store.publish(version)
        signed_store.path(SECOND, "manifest.sig").unlink()

        assert signed_store.store.list_models() == ["wine"]
        assert signed_store.store.list_versions("wine") == [FIRST, THIRD]
        with pytest.raises(VersionNotFound):
            signed_store.store.open_version("wine", SECOND, signed_store.trusted)

    def test_a_version_is_never_overwritten(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        signed_store.publish()  # the same bytes, as in a retry after a lost response

        with pytest.raises(StoreError, match="already exists"):
            signed_store.publish(metrics={"other": 1})

        signed_store.store.open_version("wine", FIRST, signed_store.trusted)

    def test_the_signature_is_written_last(self, signed_store: SignedStore) -> None:
        signed_store.path(FIRST, "manifest.json").write_bytes(b"another writer's")

        with pytest.raises(StoreError, match="already exists"):
            signed_store.publish()

        assert signed_store.path(FIRST, "model.onnx").read_bytes() == b"onnx"
        assert signed_store.store.list_versions("wine") == []

    def test_names_of_versions_are_lower_case_and_sort_by_time(self) -> None:
        early, late = (datetime(2026, 1, 2, hour, 4, 5, tzinfo=UTC) for hour in (3, 4))

        assert re.fullmatch(r"20260102t030405z-[0-9a-f]{8}", new_version_name(early))
        assert new_version_name(early) < new_version_name(late)

    def test_a_store_that_does_not_exist_yet_is_empty(self, signed_store: SignedStore) -> None:
        assert signed_store.store.list_models() == []
        assert signed_store.store.list_versions("wine") == []
        assert signed_store.store.list_releases("wine") == []
        assert signed_store.store.find_release("wine", 1) is None
        assert signed_store.store.live_release("wine", signed_store.trusted) is None

    def test_fields_of_a_later_version_are_ignored(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        raw = json.loads(signed_store.path(FIRST, "manifest.json").read_bytes())
        forged = json.dumps(raw | {"since_later": [1]}).encode()
        signed_store.path(FIRST, "manifest.json").write_bytes(forged)
        signed_store.path(FIRST, "manifest.sig").write_bytes(signed_store.key.sign(forged))

        assert signed_store.store.open_version("wine", FIRST, signed_store.trusted).gate == "passed"

    def test_no_temporary_file_is_left_behind(self, folder_store: SignedStore) -> None:
        folder_store.publish()
        folder_store.release(FIRST)

        assert list(folder_store.folder.rglob("*.tmp")) == []


class TestRefusals:
    @pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
    def test_a_flipped_bit_under_the_signature_is_refused(
        self, signed_store: SignedStore, name: str
    ) -> None:
        signed_store.publish()
        signed_store.path(FIRST, name).flip_bit()

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.open_version("wine", FIRST, signed_store.trusted)

        assert refusal.value.reason == "signature"

    @pytest.mark.parametrize(
        "damage", [Blob.flip_bit, lambda blob: blob.write_bytes(b"longer"), Blob.unlink]
    )
    def test_a_file_other_than_the_signed_one_is_refused(
        self, signed_store: SignedStore, damage: Callable[[Blob], None]
    ) -> None:
        published = signed_store.publish()
        damage(signed_store.path(FIRST, "model.onnx"))

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.read_file(published, "model.onnx")

        assert refusal.value.reason == "digest"

    def test_a_file_the_manifest_does_not_list_is_refused(self, signed_store: SignedStore) -> None:
        published = signed_store.publish()

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.read_file(published, "../../secret")

        assert refusal.value.reason == "name"

    def test_a_version_copied_to_another_name_is_refused(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        for name in ("model.onnx", "manifest.json", "manifest.sig"):
            signed_store.path(SECOND, name).write_bytes(signed_store.path(FIRST, name).read_bytes())

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.open_version("wine", SECOND, signed_store.trusted)

        assert refusal.value.reason == "name"

    def test_a_signed_but_malformed_manifest_is_refused(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        signed_store.path(FIRST, "manifest.json").write_bytes(b"{}")
        signed_store.path(FIRST, "manifest.sig").write_bytes(signed_store.key.sign(b"{}"))

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.open_version("wine", FIRST, signed_store.trusted)

        assert refusal.value.reason == "manifest"

    def test_a_signature_by_another_key_is_refused(self, signed_store: SignedStore) -> None:
        signed_store.publish()

        with pytest.raises(VersionRefused):
            signed_store.store.open_version(
                "wine", FIRST, TrustedKeys([Ed25519PrivateKey.generate().public_key()])
            )

    @pytest.mark.parametrize("name", UNSAFE_NAMES, ids=lambda name: ascii(name)[:20])
    def test_an_unsafe_name_touches_no_path(self, signed_store: SignedStore, name: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: signed_store.store.list_versions(name),
            lambda: signed_store.store.list_releases(name),
            lambda: signed_store.store.find_release(name, 1),
            lambda: signed_store.store.open_version(name, FIRST, signed_store.trusted),
            lambda: signed_store.store.open_version("wine", name, signed_store.trusted),
        ]
        for call in calls:
            with pytest.raises(VersionNotFound):
                call()
        with pytest.raises(ValueError, match="not a valid model name"):
            manifest(FIRST, model=name)

    @given(st.text())
    def test_a_model_name_is_always_one_plain_path_segment(self, name: str) -> None:
        if is_model_name(name):
            assert name == Path("/store", name).resolve().relative_to("/store").as_posix()

    def test_a_system_error_is_reported_in_one_sentence(self, folder_store: SignedStore) -> None:
        signed_store = folder_store
        (signed_store.folder / "models").write_text("a file where a folder should be")

        with pytest.raises(StoreError) as failure:
            signed_store.publish()

        assert str(signed_store.folder) not in str(failure.value)
        assert "\n" not in str(failure.value)


class TestSequence:
    @given(st.lists(st.integers(0, LAST_NUMBER)))
    def test_every_number_is_in_one_list_and_the_sequence_has_no_wide_gap(
        self, numbers: list[int]
    ) -> None:
        sequence, strays = split_sequence(numbers)

        assert sequence + strays == sorted(numbers)
        assert all(b - a <= MAX_GAP for a, b in itertools.pairwise([0, *sequence]))
        assert not strays or strays[0] - max(sequence, default=0) > MAX_GAP

    def test_after_the_last_number_the_error_is_one_sentence(self) -> None:
        assert next_number([LAST_NUMBER - 1]) == LAST_NUMBER
        with pytest.raises(StoreError, match="No record number is left"):
            next_number([LAST_NUMBER])


class TestReleases:
    def test_the_highest_release_that_verifies_is_live(self, signed_store: SignedStore) -> None:
        for version in (FIRST, SECOND, THIRD):
            signed_store.publish(version)
        signed_store.release(FIRST)
        live = signed_store.release(SECOND)
        signed_store.release(THIRD)
        signed_store.path(THIRD, "manifest.json").flip_bit()
        signed_store.record(4).write_bytes(b"rubbish")
        signed_store.record(5).write_bytes(b"")
        signed_store.record(6).write_bytes(
            live.model_dump_json().encode()
        )  # the record's number is 2

        assert signed_store.store.live_release("wine", signed_store.trusted) == live
        for number in (4, 5, 6):
            with pytest.raises(VersionRefused):
                signed_store.store.find_release("wine", number)

    def test_a_release_made_for_another_manifest_is_not_live(
        self, signed_store: SignedStore
    ) -> None:
        signed_store.publish()
        signed_store.store.append_release(
            "wine", decide=lambda number, _: release(number, FIRST, "0" * 64)
        )

        assert signed_store.store.live_release("wine", signed_store.trusted) is None

    def test_a_version_that_failed_its_gate_cannot_be_live(self, signed_store: SignedStore) -> None:
        signed_store.publish(gate="failed")
        record = signed_store.release(FIRST)

        with pytest.raises(VersionRefused) as refusal:
            signed_store.store.open_release("wine", record, signed_store.trusted)

        assert refusal.value.reason == "gate"
        assert signed_store.store.live_release("wine", signed_store.trusted) is None

    @pytest.mark.parametrize("number", [7, MAX_GAP])
    def test_the_next_number_follows_the_highest_that_exists(
        self, signed_store: SignedStore, number: int
    ) -> None:
        signed_store.publish()
        signed_store.record(number).write_bytes(b"rubbish")

        assert signed_store.release(FIRST).number == number + 1

    @pytest.mark.parametrize("number", [MAX_GAP + 2, 99_999_999])
    def test_a_record_far_beyond_the_sequence_is_ignored(
        self, signed_store: SignedStore, number: int
    ) -> None:
        for version in (FIRST, SECOND):
            signed_store.publish(version)
        live = signed_store.release(SECOND)
        digest = signed_store.store.manifest_sha256("wine", FIRST)
        stray = release(number, FIRST, digest).model_dump_json().encode()
        signed_store.record(number).write_bytes(stray)

        assert signed_store.store.live_release("wine", signed_store.trusted) == live
        assert signed_store.store.split_releases("wine") == ([1], [number])
        assert signed_store.release(FIRST).number == 2

    def test_writers_at_once_get_different_numbers(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        with ThreadPoolExecutor(8) as pool:
            numbers_written = list(
                pool.map(lambda _: signed_store.release(FIRST).number, range(24))
            )

        assert (
            sorted(numbers_written)
            == list(range(1, 25))
            == signed_store.store.list_releases("wine")
        )

    def test_a_writer_that_loses_a_number_gets_the_winner(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        digest = signed_store.store.manifest_sha256("wine", FIRST)

        def decide(number: int, taken: Release | Withdrawal | None) -> Release:
            if taken is not None:
                raise ReleaseTaken(taken)
            signed_store.release(FIRST)  # another writer is faster
            return release(number, FIRST, digest, by="bob@lab")

        with pytest.raises(ReleaseTaken, match="written by ada@lab"):
            signed_store.store.append_release("wine", decide=decide)

        assert signed_store.store.list_releases("wine") == [1]

    def test_finding_ones_own_record_at_the_number_is_success(
        self, signed_store: SignedStore
    ) -> None:
        signed_store.publish()
        record = release(1, FIRST, signed_store.store.manifest_sha256("wine", FIRST))

        def decide(number: int, taken: Release | Withdrawal | None) -> Release:
            if not signed_store.store.list_releases(
                "wine"
            ):  # the first attempt, whose response is lost
                signed_store.store.append_release("wine", decide=lambda *_: record)
            return record

        assert signed_store.store.append_release("wine", decide=decide) == record
        assert signed_store.store.list_releases("wine") == [1]

    def test_a_reader_never_sees_half_a_release(self, signed_store: SignedStore) -> None:
        signed_store.publish()
        stop = threading.Event()

        def read() -> int:
            highest = 0
            while not stop.is_set():
                live = signed_store.store.live_release("wine", signed_store.trusted)
                number = live.number if live else 0
                assert number >= highest
                highest = number
            return highest

        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(read)
            for _ in range(30):
                signed_store.release(FIRST)
            stop.set()
            assert reader.result() <= 30

    def test_a_run_record_is_stored_under_its_idempotency_key(
        self, signed_store: SignedStore
    ) -> None:
        first = RunRecord(version=FIRST, gate="failed")
        signed_store.store.record_run("wine", "drop 1/ü", first)
        signed_store.store.record_run("wine", "drop 1/ü", RunRecord(version=SECOND, gate="passed"))

        assert signed_store.store.find_run("wine", "drop 1/ü") == first
        assert signed_store.store.find_run("wine", "drop 2") is None
