"""Encryption at rest."""

import os

import pytest

from services.auth.signing.vault import Vault, WrongPassphrase, unwrap, wrap
from services.common.errors import Unavailable


def test_a_wrapped_key_needs_its_passphrase() -> None:
    key = os.urandom(32)
    stored = wrap(key, "right")

    assert unwrap(stored, ("right", "")) == (key, "right")
    assert unwrap(stored, ("new", "right")) == (key, "right")
    for wrong in (("",), ("wrong", ""), ("Right",)):
        with pytest.raises(WrongPassphrase):
            unwrap(stored, wrong)


def test_without_a_passphrase_the_key_is_stored_as_it_is() -> None:
    key = os.urandom(32)

    assert unwrap(wrap(key, ""), ("any", "")) == (key, "")


def test_nothing_is_encrypted_before_the_key_is_loaded() -> None:
    with pytest.raises(Unavailable):
        Vault().encrypt(b"secret", owner="x")
