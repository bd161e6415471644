"""Money, numbers and dates in the visitor's locale."""

import re
from pathlib import Path

import pytest

from services import console
from services.console.design.locales import (
    choose_locale,
    show_counted,
    show_day,
    show_duration,
    show_integer,
    show_moment,
    show_money,
    show_month,
    show_rounded,
)

CONSOLE = Path(console.__file__).parent
NO_BREAK = {0xA0: " ", 0x202F: " "}


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "en_US"),
        ("de-DE,de;q=0.9,en;q=0.8", "de_DE"),
        ("en;q=0.1, fr-CH", "fr_CH"),
        ("xx-YY, ja", "ja"),
        ("pt-BR;q=0, es", "es"),
        ("*", "en_US"),
        ("../../etc/passwd", "en_US"),
        ("de" * 5000, "en_US"),
        (", ,;q=,", "en_US"),
    ],
)
def test_the_first_known_locale_is_chosen(header: str, chosen: str) -> None:
    assert str(choose_locale(header)) == chosen


@pytest.mark.parametrize(
    ("amount", "currency", "tag", "shown"),
    [
        ("0.0005", "USD", "en-US", "$0.0005"),
        ("0.148", "USD", "en-US", "$0.1480"),
        ("0.00005", "USD", "en-US", "$0.00005"),
        ("1234567.5", "USD", "en-US", "$1,234,567.50"),
        ("1234567.5", "EUR", "de-DE", "1.234.567,50 €"),
        ("0.000000001", "EUR", "fr-FR", "0,000000001 €"),
        ("-3", "USD", "en-US", "-$3.00"),
        ("12", "JPY", "en-US", "¥12"),
        ("0", None, "en-US", "0"),
    ],
)
def test_an_amount_keeps_all_its_digits(
    amount: str, currency: str | None, tag: str, shown: str
) -> None:
    assert show_money(amount, currency, choose_locale(tag)).translate(NO_BREAK) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("12.3456", "$12.35"),
        ("0.00123456", "$0.0012"),
        ("0.00000007", "$0.00000007"),
        ("0", "$0.00"),
    ],
)
def test_an_estimate_is_rounded_but_never_to_nothing(amount: str, shown: str) -> None:
    assert show_rounded(amount, "USD", choose_locale("en-US")) == shown


@pytest.mark.parametrize(
    ("number", "noun", "tag", "shown"),
    [
        (1, "request", "en-US", "1 request"),
        (0, "request", "en-US", "0 requests"),
        (12345, "more row", "de-DE", "12.345 more rows"),
    ],
)
def test_a_noun_follows_its_number(number: int, noun: str, tag: str, shown: str) -> None:
    assert show_counted(number, noun, choose_locale(tag)) == shown


def test_no_template_writes_a_plural_after_a_number_by_itself() -> None:
    plural = re.compile(r"\|(?:integer|figure)\s*(?:\}\}|\)? ~ \") [a-z]+ ?[a-z]*s\b")
    templates = [each for each in CONSOLE.rglob("*.j2")]
    found = [(each.name, plural.findall(each.read_text())) for each in templates]

    assert len(templates) > 30
    assert [each for each in found if each[1]] == []


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.00042, "0.4 ms"), (0.034, "34 ms"), (1.256, "1.26 s")]
)
def test_a_duration_has_a_unit_that_suits_it(seconds: float, shown: str) -> None:
    assert show_duration(seconds, choose_locale("en-US")) == shown


def test_dates_are_written_as_the_visitor_does() -> None:
    german, american = choose_locale("de-DE"), choose_locale("en-US")

    assert show_day("2026-11-27T15:00:00Z", german) == "27.11.2026"
    assert show_day("2026-11-27", american) == "Nov 27, 2026"
    assert show_month("2026-10", american) == "October 2026"
    assert show_moment("2026-11-27T15:00:00Z", american).endswith("UTC")
    assert show_integer(12345, german) == "12.345"
