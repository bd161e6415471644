"""The format of API keys, whose checksum reveals a mistyped key without a look-up.

tg_live_<32 base62 characters>_<6 base62 digits of CRC-32>
"""

import re
import secrets
import string
import zlib
from typing import Literal

Mode = Literal["live", "test"]
"""Predictions with a `test` key are not billed."""

KEY_SCOPES = ("predict", "usage:read")
"""The scopes that an API key may have."""
PREFIX_CHARS = 12
"""How much of a key identifies it to its owner: the mode and four characters."""

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARS = 32
_CHECKSUM_DIGITS = 6
_START = b"tg_"
_KEY = re.compile(
    rb"tg_(?:live|test)_[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}" % (_RANDOM_CHARS, _CHECKSUM_DIGITS)
)


def new_api_key(mode: Mode) -> str:
    """Return a new random key, with 190 bits of randomness."""
    body = f"tg_{mode}_" + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARS))
    return f"{body}_{key_checksum(body.encode())}"


def key_checksum(body: bytes) -> str:
    """Return the checksum of the part of a key before its last underscore."""
    rest, digits = zlib.crc32(body), ""
    for _ in range(_CHECKSUM_DIGITS):
        rest, digit = divmod(rest, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits


def looks_like_api_key(credentials: bytes) -> bool:
    """Return whether credentials are meant to be an API key, which an access token never is."""
    return credentials.startswith(_START)


def is_api_key(credentials: bytes) -> bool:
    """Return whether credentials have the format of an API key, and the right checksum."""
    if not _KEY.fullmatch(credentials):
        return False
    body, _, checksum = credentials.rpartition(b"_")
    return key_checksum(body).encode() == checksum
