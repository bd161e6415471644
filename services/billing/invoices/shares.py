"""The shares of an invoice's lines, and what of a line its events are worth. Pure functions."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from services.billing.currencies import rounded


class LineKey(NamedTuple):
    """What the lines of an invoice are kept by."""

    model: str
    price_id: str


class LineShare(NamedTuple):
    """A line's part of what an invoice charges, in 10⁻⁹ of the unit."""

    amount: int
    """The exact sum of its events, without tax."""
    rounded: int
    tax: int
    """Its part of the invoice's tax."""
    rate: Fraction
    unit: int

    @property
    def gross(self) -> int:
        """What the line charges, rounded and with tax."""
        return self.rounded + self.tax

    def worth(self, amount: int) -> tuple[int, int]:
        """Return what some of its events are worth: rounded without tax, and their tax.

        That is how much less the line would charge without them. So less than a minor unit is never
        lost: it counts with all that is taken back of the line, now and later. All events are worth
        the whole line, so what is given back now and then never adds up to more.
        """
        net = self.rounded - rounded(max(0, self.amount - amount), unit=self.unit)
        if net == self.rounded:
            return self.rounded, self.tax
        return net, min(rounded(self.rate * net, unit=self.unit), self.tax)


def tax_within(amount: int, *, rate: Fraction, unit: int) -> int:
    """Return the tax in an amount that includes it."""
    return rounded(amount * rate / (1 + rate), unit=unit)


def line_shares(lines: Iterable[tuple[int, int]], *, rate: Fraction, unit: int) -> list[LineShare]:
    """Return the shares of lines, given the exact and the rounded amount of each.

    Tax is rounded once for the invoice. Each line's part is what it adds to the tax so far.
    """
    shares: list[LineShare] = []
    subtotal = taxed = 0
    for amount, in_units in lines:
        subtotal += in_units
        tax = rounded(rate * subtotal, unit=unit) - taxed
        taxed += tax
        shares.append(LineShare(amount, in_units, tax, rate, unit))
    return shares
