"""One spelling for every e-mail address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.accounts.emails import normalise_email


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("\t ada@example.com \r\n", "ada@example.com"),
        ("ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ada@example.com"),
        ("Straße@x.io", "strasse@x.io"),
        ("E\u0301va@x.io", "éva@x.io"),
        ("ﬁona@x.io", "fiona@x.io"),
        ("ΣΊΣΥΦΟΣ@x.io", "σίσυφοσ@x.io"),
    ],
)
def test_spellings_of_one_address_are_one(text: str, normal: str) -> None:
    assert normalise_email(text) == normal


@given(st.text())
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    once = normalise_email(text)

    assert normalise_email(once) == once


@given(st.emails())
def test_case_never_makes_another_account(email: str) -> None:
    assert normalise_email(email.upper()) == normalise_email(email.lower())
