"""What is left of an invoice and of its lines, after all that was given back. Pure functions.

An invoice is given back in two ways: events are taken back, or a credit note is issued. What the
events of a line give back depends on their sum and on the line's credit notes alone, not on the
order of things. So nothing is given back twice, whatever happens first.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from services.billing.corrections.models import CreditNote
from services.billing.currencies import minor_unit
from services.billing.invoices.making import PREPAID
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.reversals import ReversedSum
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.shares import LineKey, LineShare, line_shares, tax_within
from services.common.contracts import parse_amount


class LineLeft(NamedTuple):
    """A line of an invoice, and what was given back of it."""

    key: LineKey
    share: LineShare
    is_prepaid: bool
    taken: ReversedSum
    """What was taken back of its events."""
    noted: int
    """What credit notes gave back of it, other than for its events; with tax."""

    def given(self, taken: int) -> int:
        """Return what its events give back if this much of them is taken back; with tax."""
        return min(sum(self.share.worth(taken)), max(0, self.share.gross - self.noted))

    @property
    def left(self) -> int:
        """What is left of it, rounded and with tax."""
        return max(0, self.share.gross - self.noted - self.given(self.taken.amount))


class Given(NamedTuple):
    """What events of a line give back that are taken back now."""

    key: LineKey
    is_prepaid: bool
    amount: int
    """What the events had cost, exact and without tax."""
    to_balance: int
    """What returns to the prepaid balance."""
    credit: int
    """What is given back otherwise: in whole minor units and with tax."""
    tax: int
    """The tax in `credit`."""
    is_whole: bool
    """Whether that is all that they are worth: a credit note has given back none of it."""

    @property
    def missing(self) -> int:
        """What the events had cost beyond what they give back without tax."""
        return self.amount - self.to_balance - (self.credit - self.tax)


@dataclass(frozen=True, slots=True)
class InvoiceLeft:
    """What is left of an invoice, in 10⁻⁹ of the unit."""

    lines: Sequence[LineLeft]
    rate: Fraction
    unit: int
    charge: int
    """What is left of all that the invoice charged, however that was paid; with tax."""
    owed: int
    """What the account still owes."""
    balance: int
    """What may still return to the prepaid balance: exactly what it paid."""
    _shown_balance: int

    @property
    def total(self) -> int:
        """What credit notes can still give back: never more than was owed or paid."""
        return min(self.charge, self.owed + self._shown_balance)

    def tax_in(self, amount: int) -> int:
        """Return the tax in an amount that includes it."""
        return tax_within(amount, rate=self.rate, unit=self.unit)

    def give(self, taken: Mapping[LineKey, int]) -> list[Given]:
        """Return what events give back that are taken back now, by line.

        Args:
            taken: the exact sums of these events. Lines that the invoice lacks are left out.
        """
        charge, balance = self.charge, self.balance
        gifts: list[Given] = []
        for line in self.lines:
            amount = taken.get(line.key)
            if amount is None:
                continue
            before, after = line.taken.amount, line.taken.amount + amount
            (net, tax), (net_before, tax_before) = map(line.share.worth, (after, before))
            gross = min(line.given(after) - line.given(before), charge)
            charge -= gross
            is_whole = gross == net + tax - net_before - tax_before
            tax = tax - tax_before if is_whole else self.tax_in(gross)
            to_balance = 0
            if line.is_prepaid:
                exact_left = line.share.amount + line.share.tax - line.noted - line.taken.returned
                wanted = amount if is_whole else min(amount, gross - tax)
                to_balance = max(0, min(wanted, exact_left, balance))
                balance -= to_balance
                rest = max(0, min(wanted, gross - tax) - to_balance)
                credit = tax + rest // self.unit * self.unit
            else:
                credit = gross
            gifts.append(
                Given(line.key, line.is_prepaid, amount, to_balance, credit, tax, is_whole)
            )
        return gifts


def what_is_left(
    invoice: InvoiceRead,
    *,
    notes: Sequence[CreditNote],
    taken: Mapping[LineKey, ReversedSum],
    prepaid: Collection[str],
) -> InvoiceLeft:
    """Return what is left of an invoice.

    Args:
        notes: all its credit notes.
        taken: what was taken back of its events, by line.
        prepaid: the ids of its prices that are prepaid.
    """
    unit = minor_unit(invoice.currency)
    rate = AppliedTax(rate=invoice.tax.rate, reason="").fraction
    noted: Counter[int] = Counter()
    for note in notes:
        for stored in note.lines:
            if not stored.get("events"):
                noted[stored["line"]] += parse_amount(stored["amount"])
    shares = line_shares(
        [(parse_amount(line.amount), parse_amount(line.rounded)) for line in invoice.lines],
        rate=rate,
        unit=unit,
    )
    lines = [
        LineLeft(
            key=(key := LineKey(line.model or "", line.price_id)),
            share=share,
            is_prepaid=line.price_id in prepaid,
            taken=taken.get(key, ReversedSum()),
            noted=noted[number],
        )
        for number, (line, share) in enumerate(zip(invoice.lines, shares, strict=True))
    ]
    charged = sum(share.gross for share in shares)
    charged -= sum(note.amount for note in notes if not _is_of_events(note))
    charge = charged - min(charged, sum(line.given(line.taken.amount) for line in lines))
    return InvoiceLeft(lines, rate, unit, charge, *_paid(invoice, lines, notes=notes))


def _is_of_events(note: CreditNote) -> bool:
    """Return whether a credit note gives back events, which then count as taken back."""
    return any(stored.get("events") for stored in note.lines)


def _paid(
    invoice: InvoiceRead, lines: Sequence[LineLeft], *, notes: Sequence[CreditNote]
) -> tuple[int, int, int]:
    """Return what is still owed, and what the balance paid: exactly, and as invoiced.

    Credit notes reduce what is owed first.
    """
    noted, total = sum(note.amount for note in notes), parse_amount(invoice.total)
    paid = [line for line in lines if line.is_prepaid]
    exact = sum(line.share.amount - line.taken.returned for line in paid)
    exact -= sum(note.to_balance for note in notes)
    shown = sum(parse_amount(each.amount) for each in invoice.credits if each.id == PREPAID)
    shown -= sum(line.share.worth(line.taken.amount)[0] for line in paid)
    shown -= max(0, noted - total)
    return max(0, total - noted), max(0, exact), max(0, shown)
