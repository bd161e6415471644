"""The folder of signing keys."""

import base64
import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jose import jwt

from services.auth import keys
from services.auth.keys import open_key_ring


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "NEW_KEY_BITS", 2048)


def write(path: Path, key: PrivateKeyTypes, password: bytes | None = None) -> None:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def test_an_empty_folder_gets_one_key_that_only_the_owner_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "keys" / "auth"

    first = open_key_ring(folder)
    second = open_key_ring(folder)

    assert first.document == second.document
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_start_together_use_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        rings = list(pool.map(open_key_ring, [tmp_path / "keys"] * 4))

    assert len({ring.document["keys"][0]["kid"] for ring in rings}) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 1


async def test_the_last_by_name_signs_and_all_are_published(tmp_path: Path) -> None:
    for name in ("0002.pem", "0001.pem"):
        write(tmp_path / name, new_key())
    ring = open_key_ring(tmp_path)

    header = jwt.get_unverified_header(ring.sign({"sub": "x"}))

    published = [key["kid"] for key in ring.document["keys"]]
    assert len(published) == 2
    assert header["kid"] == published[-1]
    for kid in published:
        assert await ring.find(kid) is not None
    assert await ring.find("another") is None


def test_the_id_is_the_rfc_7638_thumbprint(tmp_path: Path) -> None:
    (key,) = open_key_ring(tmp_path).document["keys"]

    text = f'{{"e":"{key["e"]}","kty":"RSA","n":"{key["n"]}"}}'
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    assert key["kid"] == digest.decode().rstrip("=")
    assert "private" not in json.dumps(key).lower()


def test_a_file_that_is_not_a_strong_rsa_key_is_named(tmp_path: Path) -> None:
    write(tmp_path / "short" / "a.pem", new_key(1024))
    write(tmp_path / "curve" / "b.pem", ec.generate_private_key(ec.SECP256R1()))
    write(tmp_path / "locked" / "c.pem", new_key(), password=b"secret")
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "d.pem").write_bytes(b"\x00noise")

    for folder, file in (("short", "a"), ("curve", "b"), ("locked", "c"), ("noise", "d")):
        with pytest.raises(ValueError, match=rf"{file}\.pem is not an"):
            open_key_ring(tmp_path / folder)
