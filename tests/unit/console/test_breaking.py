"""Tests of where long names may break."""

import pytest

from services.console.design.breaking import breakable


@pytest.mark.parametrize(
    ("name", "html"),
    [
        ("ada.lovelace@example.com", "ada.<wbr>lovelace<wbr>@example.<wbr>com"),
        ("refresh_token_reused", "refresh_<wbr>token_<wbr>reused"),
        ("Ada", "Ada"),
        ("", ""),
    ],
)
def test_a_name_breaks_between_its_parts(name: str, html: str) -> None:
    assert breakable(name) == html


def test_no_markup_of_a_name_gets_through() -> None:
    assert breakable("<b>.x'&") == "&lt;b&gt;.<wbr>x&#39;&amp;"
