"""The format of API keys."""

import re
import zlib

import pytest

from services.common.identity.api_keys import (
    is_api_key,
    key_checksum,
    looks_like_api_key,
    new_api_key,
)

GOOD = b"tg_live_0123456789ABCDEFGHIJKLMNOPQRSTUV_"
GOOD += key_checksum(GOOD.rpartition(b"_")[0]).encode()


@pytest.mark.parametrize("mode", ["live", "test"])
def test_a_new_key_is_valid_and_like_no_other(mode: str) -> None:
    keys = [new_api_key(mode) for _ in range(100)]  # type: ignore[arg-type]

    assert all(re.fullmatch(rf"tg_{mode}_[0-9A-Za-z]{{32}}_[0-9A-Za-z]{{6}}", key) for key in keys)
    assert all(is_api_key(key.encode()) for key in keys)
    assert len(set(keys)) == 100


@pytest.mark.parametrize(
    ("body", "digits"),
    [
        (b"", "000000"),  # CRC-32 of nothing is 0
        (b"123456789", "3jZRME"),  # the check value of CRC-32, 0xCBF43926
    ],
)
def test_the_checksum_is_crc_32_in_base62_most_significant_first(body: bytes, digits: str) -> None:
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value = 0
    for digit in digits:
        value = value * 62 + alphabet.index(digit)

    assert key_checksum(body) == digits
    assert value == zlib.crc32(body)


@pytest.mark.parametrize("position", range(len(GOOD)))
def test_a_change_of_any_one_character_is_noticed(position: int) -> None:
    other = b"B" if GOOD[position : position + 1] != b"B" else b"C"

    assert is_api_key(GOOD)
    assert not is_api_key(GOOD[:position] + other + GOOD[position + 1 :])


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"tg_",
        b"tg_live_",
        GOOD + b"\n",
        GOOD + b"0",
        GOOD[:-1],
        b" " + GOOD,
        GOOD.replace(b"live", b"LIVE"),
        GOOD.replace(b"live", b"prod"),
        GOOD.replace(b"0123", "é".encode() * 2),
        b"tg_live_" + b"0" * 1_000_000,
    ],
)
def test_anything_else_is_no_key(wrong: bytes) -> None:
    assert not is_api_key(wrong)


def test_an_access_token_never_looks_like_a_key() -> None:
    assert looks_like_api_key(GOOD)
    assert looks_like_api_key(b"tg_live_mistyped")
    assert not looks_like_api_key(b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln")
