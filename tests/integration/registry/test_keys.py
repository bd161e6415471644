"""Keys: one signs, several are trusted, and running services reload changed files."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.stores import FIRST, SECOND, SignedStore, manifest, new_signed_store
from registry.keys import (
    TrustedKeys,
    create_signing_key,
    key_id,
    list_keys,
    load_signing_key,
    rotate_signing_key,
)
from registry.records import StoreError, VersionRefused


class TestKeys:
    def test_processes_at_once_agree_on_one_key(self, tmp_path: Path) -> None:
        private, trusted = tmp_path / "keys/signing.pem", tmp_path / "keys/trusted"
        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(lambda _: create_signing_key(private, trusted), range(8)))

        assert len({key.private_bytes_raw() for key in keys}) == 1
        assert private.stat().st_mode & 0o777 == 0o600
        assert len(list(trusted.iterdir())) == 1
        assert TrustedKeys.load(trusted).verify(b"data", keys[0].sign(b"data"))

    def test_a_single_key_file_can_be_trusted(self, tmp_path: Path) -> None:
        key = create_signing_key(tmp_path / "signing.pem", tmp_path / "trusted")
        [file] = (tmp_path / "trusted").iterdir()

        assert TrustedKeys.load(file).verify(b"data", key.sign(b"data"))

    def test_an_invalid_key_is_reported_by_name_without_its_path(self, tmp_path: Path) -> None:
        (tmp_path / "bad.pem").write_text("no key")

        for load in (TrustedKeys.load, load_signing_key):
            with pytest.raises(StoreError, match=r"key bad\.pem cannot be read") as failure:
                load(tmp_path / "bad.pem")
            assert str(tmp_path) not in str(failure.value)
        with pytest.raises(StoreError):
            TrustedKeys.load(tmp_path / "nowhere")


class TestRotation:
    @pytest.fixture
    def rotated(self, tmp_path: Path, store_url: str) -> SignedStore:
        """A version signed before a rotation, and one after it; the keys were loaded before."""
        signed_store = new_signed_store(tmp_path, store_url)
        signed_store.publish(FIRST)
        rotate_signing_key(tmp_path / "keys/signing.pem", tmp_path / "keys/trusted")
        new = load_signing_key(tmp_path / "keys/signing.pem")
        signed_store.store.publish(manifest(SECOND), {"model.onnx": b"onnx"}, new)
        return signed_store

    def test_versions_signed_by_the_old_and_the_new_key_are_trusted(
        self, rotated: SignedStore
    ) -> None:
        for version in (FIRST, SECOND):
            assert rotated.store.open_version("wine", version, rotated.trusted).version == version

    def test_versions_signed_by_a_removed_key_are_refused(self, rotated: SignedStore) -> None:
        rotated.store.open_version("wine", FIRST, rotated.trusted)

        (rotated.folder / f"keys/trusted/{key_id(rotated.key.public_key())}.pem").unlink()

        with pytest.raises(VersionRefused) as refusal:
            rotated.store.open_version("wine", FIRST, rotated.trusted)
        assert refusal.value.reason == "signature"
        rotated.store.open_version("wine", SECOND, rotated.trusted)

    def test_a_file_that_is_not_a_key_does_not_affect_the_others(self, tmp_path: Path) -> None:
        key = create_signing_key(tmp_path / "signing.pem", tmp_path / "trusted")
        trusted = TrustedKeys.load(tmp_path / "trusted")

        (tmp_path / "trusted/half.pem").write_text("-----BEGIN")

        assert trusted.verify(b"data", key.sign(b"data"))

    def test_an_empty_folder_trusts_nothing_and_a_missing_one_changes_nothing(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "trusted"
        key = create_signing_key(tmp_path / "signing.pem", folder)
        trusted = TrustedKeys.load(folder)

        folder.rename(tmp_path / "aside")
        assert trusted.verify(b"data", key.sign(b"data"))

        folder.mkdir()
        assert not trusted.verify(b"data", key.sign(b"data"))

        shutil.copytree(tmp_path / "aside", folder, dirs_exist_ok=True)
        assert trusted.verify(b"data", key.sign(b"data"))

    def test_concurrent_rotations_leave_one_signing_key(self, tmp_path: Path) -> None:
        private, trusted = tmp_path / "keys/signing.pem", tmp_path / "keys/trusted"
        create_signing_key(private, trusted)
        with ThreadPoolExecutor(4) as pool:
            turns = list(pool.map(lambda _: rotate_signing_key(private, trusted), range(4)))

        assert len({old for old, _ in turns}) == len({new for _, new in turns}) == 4
        assert [key.signs for key in list_keys(private, trusted)].count(True) == 1
        assert len(list_keys(private, trusted)) == 5
        assert private.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.rglob("*.tmp")) == []

    def test_without_a_key_there_is_nothing_to_rotate(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(StoreError):
                rotate_signing_key(folder / "signing.pem", tmp_path / "trusted")
