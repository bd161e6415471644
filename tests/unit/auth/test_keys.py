"""Signing keys in files and in memory."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jose import jwt

from harness.auth_keys import key_ring_of
from services.auth.keys import KeyRing, LoadedKey, RingKey, from_pem, read_folder, to_pem
from services.auth.signing.schedule import KeyTimes
from services.common.errors import Unavailable

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def write(path: Path, key: PrivateKeyTypes, password: bytes | None = None) -> None:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


def private_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@pytest.fixture(scope="module")
def keys() -> list[LoadedKey]:
    return [LoadedKey(private_key()) for _ in range(3)]


class TestFolder:
    def test_keys_are_read_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        second, first = private_key(), private_key()
        write(tmp_path / "0002.pem", second)
        write(tmp_path / "0001.pem", first)
        (tmp_path / "readme.txt").write_text("not a key")

        read = read_folder(tmp_path)

        assert [key.id for key in read] == [LoadedKey(first).id, LoadedKey(second).id]
        assert read_folder(tmp_path / "missing") == []

    def test_a_file_may_be_encrypted_with_either_passphrase(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pem", private_key(), password=b"old")
        write(tmp_path / "b.pem", private_key(), password=b"new")
        write(tmp_path / "c.pem", private_key())

        assert len(read_folder(tmp_path, passphrases=("new", "old"))) == 3

    def test_a_file_that_is_not_a_strong_rsa_key_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "short" / "a.pem", private_key(1024))
        write(tmp_path / "curve" / "b.pem", ec.generate_private_key(ec.SECP256R1()))
        write(tmp_path / "locked" / "c.pem", private_key(), password=b"secret")
        (tmp_path / "noise").mkdir()
        (tmp_path / "noise" / "d.pem").write_bytes(b"\x00noise")

        for folder, file in (("short", "a"), ("curve", "b"), ("locked", "c"), ("noise", "d")):
            with pytest.raises(ValueError, match=rf"{file}\.pem is not an RSA private key"):
                read_folder(tmp_path / folder, passphrases=("another", ""))

    def test_stored_keys_are_encrypted_pkcs8(self, keys: list[LoadedKey]) -> None:
        pem = to_pem(keys[0], password=b"secret")

        assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert from_pem(pem, password=b"secret").id == keys[0].id
        with pytest.raises(ValueError, match=r"."):
            from_pem(pem, password=b"another")


class TestRing:
    async def test_the_newest_that_may_sign_does_and_all_are_published(
        self, keys: list[LoadedKey]
    ) -> None:
        now = NOW
        ring = KeyRing(clock=lambda: now)
        first, second, third = keys
        ring.replace(
            [
                RingKey(first, KeyTimes(NOW - 2 * HOUR, NOW + 2 * HOUR)),
                RingKey(second, KeyTimes(NOW - HOUR, NOW + 3 * HOUR)),
                RingKey(third, KeyTimes(NOW + HOUR)),
            ]
        )

        def signer() -> str:
            return str(jwt.get_unverified_header(ring.sign({"sub": "x"}))["kid"])

        assert signer() == second.id
        assert [key["kid"] for key in ring.document["keys"]] == [key.id for key in keys]

        now = NOW + HOUR
        assert signer() == third.id
        assert await ring.find(first.id) is not None

        now = NOW + 2 * HOUR
        assert await ring.find(first.id) is None
        assert await ring.find("another") is None
        assert [key["kid"] for key in ring.document["keys"]] == [second.id, third.id]

    async def test_without_keys_everything_is_unavailable(self) -> None:
        ring = KeyRing()

        with pytest.raises(Unavailable):
            ring.sign({"sub": "x"})
        with pytest.raises(Unavailable):
            await ring.find("any")
        with pytest.raises(Unavailable):
            _ = ring.document

    def test_the_id_is_the_rfc_7638_thumbprint(self, keys: list[LoadedKey]) -> None:
        [key] = key_ring_of(keys[:1]).document["keys"]

        text = f'{{"e":"{key["e"]}","kty":"RSA","n":"{key["n"]}"}}'
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        assert key["kid"] == digest.decode().rstrip("=")
        assert "private" not in json.dumps(key).lower()
