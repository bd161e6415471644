"""Currencies, and rounding to what they have: pure arithmetic in 10⁻⁹ of the unit."""

from fractions import Fraction
from typing import Annotated

import iso4217
from pydantic import AfterValidator

from services.common.contracts import NANO, Currency
from services.common.errors import ServiceError


class UnknownCurrency(ServiceError):
    """The account's currency is not one of ISO 4217, so that nothing can be rounded to it."""

    status = 409
    code = "unknown_currency"

    def __init__(self, currency: str) -> None:
        super().__init__(f"Currency '{currency}' is not one of ISO 4217.")


def minor_unit(currency: str) -> int:
    """Return the smallest amount of a currency, such as 10⁷ for USD, a cent.

    Raises:
        UnknownCurrency: the code is not a currency of ISO 4217.
    """
    return int(NANO // 10 ** decimals(currency))


def decimals(currency: str) -> int:
    """Return how many decimals a currency has: 2 for USD, 0 for JPY.

    Raises:
        UnknownCurrency: the code is not a currency of ISO 4217.
    """
    try:
        return int(iso4217.Currency(currency).exponent or 0)
    except ValueError as error:
        raise UnknownCurrency(currency) from error


def is_known(currency: str) -> bool:
    """Return whether a code is a currency of ISO 4217."""
    try:
        iso4217.Currency(currency)
    except ValueError:
        return False
    return True


def _known(currency: str) -> str:
    if not is_known(currency):
        raise ValueError("Must be a currency of ISO 4217, such as USD.")
    return currency


KnownCurrency = Annotated[Currency, AfterValidator(_known)]
"""A currency that money can be stored in."""


def rounded(amount: int | Fraction, *, unit: int) -> int:
    """Return the nearest multiple of `unit`; of two that are equally near, the even one."""
    return round(Fraction(amount) / unit) * unit


def shown(amount: int, *, currency: str) -> str:
    """Return an amount in whole minor units with all decimals of its currency: `1,234.50`."""
    places = decimals(currency)
    units, rest = divmod(abs(amount), NANO)
    sign = "-" if amount < 0 else ""
    fraction = f".{rest // 10 ** (9 - places):0{places}d}" if places else ""
    return f"{sign}{units:,}{fraction}"
