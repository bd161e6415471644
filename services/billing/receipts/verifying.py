"""Verification of signed receipts, offline: with billing's published keys alone."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from jose import jwk

from services.billing.receipts.keys import ALGORITHM, RECEIPT_TYPE
from services.common import strict_json

MAX_RECEIPT_BYTES = 16 * 1024

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_SIGNATURE_BYTES = 64


class InvalidReceipt(Exception):
    """The receipt is not one that a known key signed; the message says why."""


def verify_receipt(receipt: str, *, jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of a receipt, a compact JWS.

    Args:
        jwks: the JWK set of `GET /.well-known/jwks.json`.

    Raises:
        InvalidReceipt: its form, key or signature is wrong.
    """
    segments = receipt.split(".")
    if len(receipt) > MAX_RECEIPT_BYTES or len(segments) != 3:
        raise InvalidReceipt("not a compact JWS")
    header, claims = (_json_object(segment) for segment in segments[:2])
    signature = _decode(segments[2])
    if header.get("alg") != ALGORITHM or header.get("typ") != RECEIPT_TYPE:
        raise InvalidReceipt("not a receipt")
    if header.keys() != {"alg", "kid", "typ"}:
        raise InvalidReceipt("unexpected header")
    key = _find_key(jwks, header["kid"])
    if key is None:
        raise InvalidReceipt("signed by an unknown key")
    signed = receipt.rpartition(".")[0].encode("ascii")
    if len(signature) != _SIGNATURE_BYTES or not key.verify(signed, signature):
        raise InvalidReceipt("the signature is wrong")
    return claims


def _find_key(jwks: Mapping[str, Any], kid: Any) -> Any:
    """Return the key with an id, or None.

    Raises:
        InvalidReceipt: the JWK set is malformed.
    """
    try:
        for document in jwks["keys"]:
            if document["kid"] == kid and document["kty"] == "EC" and document["crv"] == "P-256":
                return jwk.construct(dict(document), ALGORITHM)
    except Exception as error:
        raise InvalidReceipt("the JWK set is malformed") from error
    return None


def _json_object(segment: str) -> dict[str, Any]:
    try:
        value = strict_json.loads(_decode(segment))
    except ValueError as error:
        raise InvalidReceipt("not JSON") from error
    if not isinstance(value, dict):
        raise InvalidReceipt("not a JSON object")
    return value


def _decode(segment: str) -> bytes:
    """Decode canonical base64url; anything more lenient would give one receipt many spellings."""
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise InvalidReceipt("not base64url")
    raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise InvalidReceipt("not base64url")
    return raw
