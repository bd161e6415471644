"""Numbers, money and dates in the visitor's locale; times are in UTC, as the APIs count them."""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_skeleton
from babel.numbers import (
    NumberPattern,
    format_decimal,
    format_percent,
    get_currency_precision,
    parse_pattern,
)
from jinja2 import pass_context
from jinja2.runtime import Context

_MAX_HEADER_CHARS = 200
_TAG = re.compile(
    r"([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2})\s*(?:;\s*q=(0(?:\.\d+)?|1(?:\.0+)?))?"
)
_DEFAULT = "en-US"
_MAX_DIGITS = 9
"""The digits of an amount after the decimal sign."""


@lru_cache(maxsize=256)
def choose_locale(accept_language: str) -> Locale:
    """Return the first locale that a visitor's `Accept-Language` names and that is known."""
    for tag in _by_preference(accept_language[:_MAX_HEADER_CHARS]):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale.parse(_DEFAULT, sep="-")


def _by_preference(header: str) -> Iterator[str]:
    found = [_TAG.fullmatch(part.strip()) for part in header.split(",")]
    named = [(float(each[2] or 1), each[1]) for each in found if each]
    for quality, tag in sorted(named, key=lambda each: -each[0]):
        if quality:
            yield tag


def show_money(amount: str | Decimal, currency: str | None, locale: Locale) -> str:
    """Return an amount with its currency; never fewer digits than it has, up to nine.

    If it has more than the currency, it has at least two more, so that amounts in a column mostly
    have the same: `$0.1480` beside `$0.3195`.
    """
    value = Decimal(amount)
    if currency is None:
        return format_decimal(value, locale=locale)
    least, own = get_currency_precision(currency), -int(value.normalize().as_tuple().exponent)
    pattern = _money_pattern(locale, least if own <= least else least + 2)
    return str(pattern.apply(value, locale, currency=currency, currency_digits=False))


@lru_cache(maxsize=256)
def _money_pattern(locale: Locale, least_digits: int) -> NumberPattern:
    """Return how a locale writes money, with at least so many digits after the decimal sign."""
    pattern = parse_pattern(locale.currency_formats["standard"].pattern)
    pattern.frac_prec = (least_digits, _MAX_DIGITS)
    return pattern


def show_rounded(amount: str | Decimal, currency: str | None, locale: Locale) -> str:
    """Return an amount with as many digits as help to compare it: two or, if it is small, four."""
    value = Decimal(amount)
    digits = Decimal("0.01") if abs(value) >= 1 or not value else Decimal("0.0001")
    exact = value.quantize(digits)
    return show_money(exact if exact or not value else value, currency, locale)


def show_integer(number: int, locale: Locale) -> str:
    """Return a whole number with its groups of digits."""
    return format_decimal(number, locale=locale)


def show_counted(number: int, noun: str, locale: Locale) -> str:
    """Return a number with its noun, such as `1 request` and `1,204 requests`.

    Args:
        noun: the singular, in English; the plural must end in `s`.
    """
    return f"{show_integer(number, locale)} {noun}{'' if number == 1 else 's'}"


def show_share(share: float, locale: Locale) -> str:
    """Return a share as a percentage with one decimal."""
    return format_percent(share, format="#,##0.0%", locale=locale)


def show_duration(seconds: float, locale: Locale) -> str:
    """Return a duration in milliseconds or, from a second on, in seconds."""
    if seconds >= 1:
        return f"{format_decimal(seconds, format='#,##0.##', locale=locale)} s"
    return f"{format_decimal(seconds * 1000, format='#,##0.#', locale=locale)} ms"


def show_figure(number: float, locale: Locale) -> str:
    """Return a measured number with four significant decimals."""
    return format_decimal(number, format="#,##0.####", locale=locale)


def show_day(day: date | str, locale: Locale) -> str:
    """Return a date."""
    return format_date(_date(day), format="medium", locale=locale)


def show_short_day(day: date | str, locale: Locale) -> str:
    """Return a date without its year."""
    return format_skeleton("MMMd", datetime.combine(_date(day), datetime.min.time()), locale=locale)


def show_short_month(day: date, locale: Locale) -> str:
    """Return the month of a date, without its year."""
    return format_skeleton("MMM", datetime.combine(day, datetime.min.time()), locale=locale)


def show_month(month: str, locale: Locale) -> str:
    """Return a month such as `2026-10`."""
    return format_skeleton("yMMMM", datetime.fromisoformat(f"{month}-01"), locale=locale)


def show_moment(moment: str, locale: Locale) -> str:
    """Return a time in UTC."""
    return f"{format_datetime(datetime.fromisoformat(moment), 'medium', locale=locale)} UTC"


def _date(day: date | str) -> date:
    return datetime.fromisoformat(day).date() if isinstance(day, str) else day


def show_receipt(amount: str, locale: Locale) -> str:
    """Return the amount and currency of a receipt; unchanged if it has more, as for a test call."""
    number, _, currency = amount.partition(" ")
    return show_money(number, currency, locale) if number and len(currency) == 3 else amount


def filters() -> dict[str, Callable[..., str]]:
    """Return the filters of templates, which read the `locale` of the page."""
    shown: dict[str, Callable[..., str]] = {
        "money": show_money,
        "rounded": show_rounded,
        "receipt": show_receipt,
        "integer": show_integer,
        "counted": show_counted,
        "share": show_share,
        "figure": show_figure,
        "duration": show_duration,
        "day": show_day,
        "short_day": show_short_day,
        "month": show_month,
        "moment": show_moment,
    }
    return {name: _in_the_pages_locale(show) for name, show in shown.items()}


def _in_the_pages_locale(show: Callable[..., str]) -> Callable[..., str]:
    @pass_context
    def apply(context: Context, *values: Any) -> str:
        return show(*values, context["locale"])

    return apply
