"""The ES256 keys that sign receipts: a folder of PEM files, published as a JWK set."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk

ALGORITHM = "ES256"
RECEIPT_TYPE = "tollgate-receipt+jws"
"""The `typ` of a receipt, so that no other signed document can pass for one (RFC 8725 §3.11)."""

_FIRST = "0001.pem"
_COORDINATE_BYTES = 32


class ReceiptKeys:
    """Keys in memory: the last private one signs, all are published.

    Args:
        keys: oldest first; of a retired one, the public key is enough.
    """

    def __init__(self, keys: list[ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey]) -> None:
        private = [key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey)]
        if not private:
            raise ValueError("there is no private key")
        self.document = {"keys": [_document(_public(key)) for key in keys]}
        """The JWK set to publish (RFC 7517)."""
        self._header = {
            "alg": ALGORITHM,
            "kid": _document(private[-1].public_key())["kid"],
            "typ": RECEIPT_TYPE,
        }
        self._signing_key = jwk.construct(private[-1], ALGORITHM)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return claims as a compact JWS (RFC 7515)."""
        signed = b".".join(_base64url(orjson.dumps(part)) for part in (self._header, claims))
        return (signed + b"." + _base64url(self._signing_key.sign(signed))).decode()


def open_receipt_keys(folder: Path) -> ReceiptKeys:
    """Read every `*.pem` in a folder, creating the first key if the folder is empty.

    Raises:
        OSError: the folder cannot be read, or the first key cannot be written.
        ValueError: a file is not a P-256 key in PEM, or none is an unencrypted private one.
    """
    if not list(folder.glob("*.pem")):
        _create_first_key(folder)
    return ReceiptKeys([_read(path) for path in sorted(folder.glob("*.pem"))])


def _create_first_key(folder: Path) -> None:
    """Write a new key; processes that start at the same time all use the same one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f".{uuid.uuid4().hex}.new"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(new_key_pem())
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, folder / _FIRST)  # atomic, and fails if the file exists
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def new_key_pem() -> bytes:
    """Return a new private key in PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read(path: Path) -> ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey:
    pem = path.read_bytes()
    try:
        key = (
            serialization.load_pem_public_key(pem)
            if b"PUBLIC KEY" in pem
            else serialization.load_pem_private_key(pem, password=None)
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name} is not an unencrypted key in PEM") from error
    if not isinstance(
        key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey
    ) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"{path.name} is not a P-256 key")
    return key


def _public(
    key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey,
) -> ec.EllipticCurvePublicKey:
    return key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key


def _document(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the public JWK; its `kid` is its RFC 7638 thumbprint."""
    numbers = key.public_numbers()
    x, y = (
        _base64url(number.to_bytes(_COORDINATE_BYTES, "big")).decode()
        for number in (numbers.x, numbers.y)
    )
    required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    kid = _base64url(hashlib.sha256(canonical).digest()).decode()
    return {**required, "use": "sig", "alg": ALGORITHM, "kid": kid}


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
