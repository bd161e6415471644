"""Signed receipts: only what a published key has signed is one, however it is spelled."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jws

from services.billing.receipts.keys import (
    RECEIPT_TYPE,
    ReceiptKeys,
    new_key_pem,
    open_receipt_keys,
)
from services.billing.receipts.verifying import InvalidReceipt, verify_receipt

CLAIMS = {"id": "e1", "rows": 3, "input_sha256": None}


@pytest.fixture
def keys(tmp_path: Path) -> ReceiptKeys:
    return open_receipt_keys(tmp_path)


def encoded(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def header_of(receipt: str) -> dict[str, Any]:
    segment = receipt.split(".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return header


class TestKeys:
    def test_a_receipt_is_verified_by_the_published_keys(self, keys: ReceiptKeys) -> None:
        receipt = keys.sign(CLAIMS)

        assert verify_receipt(receipt, jwks=keys.document) == CLAIMS
        assert header_of(receipt)["typ"] == RECEIPT_TYPE

    def test_any_jose_library_can_verify_it(self, keys: ReceiptKeys) -> None:
        receipt = keys.sign(CLAIMS)

        assert json.loads(jws.verify(receipt, keys.document, "ES256")) == CLAIMS

    def test_the_first_key_is_created_once_and_private(self, tmp_path: Path) -> None:
        first = open_receipt_keys(tmp_path / "keys").document

        assert open_receipt_keys(tmp_path / "keys").document == first
        assert (tmp_path / "keys/0001.pem").stat().st_mode & 0o777 == 0o600

    def test_after_a_rotation_the_new_key_signs_and_old_receipts_are_valid(
        self, tmp_path: Path, keys: ReceiptKeys
    ) -> None:
        old = keys.sign(CLAIMS)

        (tmp_path / "0002.pem").write_bytes(new_key_pem())
        rotated = open_receipt_keys(tmp_path)

        assert verify_receipt(old, jwks=rotated.document) == CLAIMS
        assert header_of(rotated.sign(CLAIMS))["kid"] != header_of(old)["kid"]
        with pytest.raises(InvalidReceipt, match="unknown key"):
            verify_receipt(rotated.sign(CLAIMS), jwks=keys.document)

    def test_of_a_retired_key_the_public_half_is_enough(
        self, tmp_path: Path, keys: ReceiptKeys
    ) -> None:
        old = keys.sign(CLAIMS)
        private = serialization.load_pem_private_key((tmp_path / "0001.pem").read_bytes(), None)
        (tmp_path / "0001.pem").write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        (tmp_path / "0002.pem").write_bytes(new_key_pem())

        assert verify_receipt(old, jwks=open_receipt_keys(tmp_path).document) == CLAIMS
        (tmp_path / "0002.pem").unlink()
        with pytest.raises(ValueError, match="no private key"):
            open_receipt_keys(tmp_path)

    @pytest.mark.parametrize("kind", ["text", "RSA", "P-384"])
    def test_other_keys_are_refused(self, tmp_path: Path, kind: str) -> None:
        pem = b"text"
        if kind != "text":
            key: Any = (
                rsa.generate_private_key(65537, 2048)
                if kind == "RSA"
                else ec.generate_private_key(ec.SECP384R1())
            )
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        (tmp_path / "0001.pem").write_bytes(pem)

        with pytest.raises(ValueError, match=r"0001\.pem is not"):
            open_receipt_keys(tmp_path)


class TestForgeries:
    @pytest.mark.parametrize(
        "change",
        [
            {"alg": "none"},
            {"alg": "HS256"},
            {"typ": "at+jwt"},
            {"kid": None},
            {"kid": "other"},
            {"crit": ["exp"]},
            {"jwk": {}},
        ],
    )
    def test_another_header_is_refused(self, keys: ReceiptKeys, change: dict[str, Any]) -> None:
        receipt = keys.sign(CLAIMS)
        _, claims, signature = receipt.split(".")

        forged = f"{encoded(header_of(receipt) | change)}.{claims}.{signature}"

        with pytest.raises(InvalidReceipt):
            verify_receipt(forged, jwks=keys.document)

    def test_other_claims_are_refused(self, keys: ReceiptKeys) -> None:
        header, _, signature = keys.sign(CLAIMS).split(".")

        with pytest.raises(InvalidReceipt, match="signature is wrong"):
            verify_receipt(
                f"{header}.{encoded(CLAIMS | {'rows': 1})}.{signature}", jwks=keys.document
            )

    def test_no_changed_character_is_overlooked(self, keys: ReceiptKeys) -> None:
        receipt = keys.sign(CLAIMS)

        for place in range(len(receipt)):
            changed = "A" if receipt[place] != "A" else "B"
            forged = receipt[:place] + changed + receipt[place + 1 :]
            with pytest.raises(InvalidReceipt):
                verify_receipt(forged, jwks=keys.document)

    @pytest.mark.parametrize(
        "text", ["", ".", "..", "a.b", "a.b.c.d", "é.a.b", "e30.e30.e30", "x" * 20_000]
    )
    def test_other_text_is_refused(self, keys: ReceiptKeys, text: str) -> None:
        with pytest.raises(InvalidReceipt):
            verify_receipt(text, jwks=keys.document)

    def test_padding_and_blanks_are_refused(self, keys: ReceiptKeys) -> None:
        for forged in (keys.sign(CLAIMS) + "==", keys.sign(CLAIMS) + "\n"):
            with pytest.raises(InvalidReceipt):
                verify_receipt(forged, jwks=keys.document)

    @pytest.mark.parametrize("jwks", [{}, [], {"keys": 1}, {"keys": [{}]}, {"keys": [1]}])
    def test_a_malformed_jwk_set_is_reported(self, keys: ReceiptKeys, jwks: Any) -> None:
        with pytest.raises(InvalidReceipt, match="JWK set"):
            verify_receipt(keys.sign(CLAIMS), jwks=jwks)
