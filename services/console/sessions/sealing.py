"""Encrypt and authenticate what browsers keep for the console (Fernet)."""

import base64
import hashlib
import hmac
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Sealer:
    """Seals documents so that browsers can keep them but neither read nor change them.

    Args:
        secret: the same for all replicas.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._boxes: dict[str, Fernet] = {}
        self._mac_key = self._derive("csrf")

    def seal(self, document: dict[str, Any], *, purpose: str) -> str:
        """Return a document as printable ASCII, which only `unseal` for the same purpose opens."""
        return self._box(purpose).encrypt(orjson.dumps(document)).decode("ascii")

    def unseal(self, text: str, *, purpose: str, max_age_s: int | None = None) -> Any:
        """Return the document in a sealed text; None if it was changed, or is too old."""
        try:
            return orjson.loads(self._box(purpose).decrypt(text.encode(), ttl=max_age_s))
        except (InvalidToken, UnicodeEncodeError):
            return None

    def sign(self, text: str) -> str:
        """Return a code that proves to `is_signed` that the console knew this text."""
        digest = hmac.new(self._mac_key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def is_signed(self, code: str, *, text: str) -> bool:
        """Return whether `sign` returned this code for a text."""
        return hmac.compare_digest(code.encode("utf-8", "replace"), self.sign(text).encode())

    def _box(self, purpose: str) -> Fernet:
        if purpose not in self._boxes:
            self._boxes[purpose] = Fernet(base64.urlsafe_b64encode(self._derive(purpose)))
        return self._boxes[purpose]

    def _derive(self, purpose: str) -> bytes:
        kdf = HKDF(SHA256(), length=32, salt=None, info=f"tollgate console {purpose}".encode())
        return kdf.derive(self._secret.encode())
