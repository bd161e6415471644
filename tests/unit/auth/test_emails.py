"""Normalisation of e-mail addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.users.emails import _fold_letter, _fold_simply, fold_email, normalise_email


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("\t ada@example.com \r\n", "ada@example.com"),
        ("ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ada@example.com"),
        ("Straße@x.io", "straße@x.io"),
        ("STRAẞE@STRAẞE.de", "straße@straße.de"),
        ("ada@xn--strae-oqa.de", "ada@straße.de"),
        ("STRASSE@x.io", "strasse@x.io"),
        ("ada@example。com", "ada@example.com"),
        ("ada@example．com", "ada@example.com"),
        ("ada@example｡com", "ada@example.com"),
        ("ada@XN--BCHER-KVA.example", "ada@bücher.example"),
        ("ada@BÜCHER.example", "ada@bücher.example"),
        ("ada@bu\u0308cher.example", "ada@bücher.example"),
        ("ada@not_a_domain", "ada@not_a_domain"),
        ("E\u0301va@x.io", "éva@x.io"),
        ("ﬁona@x.io", "fiona@x.io"),
        ("ΣΊΣΥΦΟΣ@x.io", "σίσυφοσ@x.io"),
    ],
)
def test_spellings_of_one_address_have_one_form(text: str, normal: str) -> None:
    assert normalise_email(text) == normal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("straße@x.io", "strasse@x.io"),
        ("ada@straße.de", "ada@strasse.de"),
        ("ada@σίσυφος.gr", "ada@σίσυφοσ.gr"),
        ("é@x.io", "e@x.io"),
        ("ada@bücher.example", "ada@bucher.example"),
    ],
)
def test_two_addresses_stay_different(one: str, other: str) -> None:
    assert normalise_email(one) != normalise_email(other)


@given(st.text(), st.text())
def test_addresses_stored_by_older_versions_are_found(one: str, two: str) -> None:
    typed = f"{one}@{two}.example"

    assert fold_email(fold_email(typed)) == fold_email(typed)


@given(st.text() | st.tuples(st.text(), st.text()).map("@".join))
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    once = normalise_email(text)

    assert normalise_email(once) == once


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_folded_letter_by_letter_like_other_text(text: str) -> None:
    assert _fold_simply(text) == "".join(map(_fold_letter, text))


@given(st.emails())
def test_letter_case_never_makes_another_user(email: str) -> None:
    assert normalise_email(email.upper()) == normalise_email(email.lower())
