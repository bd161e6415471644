"""What is left of an invoice and of its lines, after all that was given back. Pure functions.

An invoice is given back in two ways: events are taken back, or a credit note is issued. What the
events of all lines are worth, less what credit notes gave back of those lines, is what they give
back in all; each time, that is what is missing of it. So nothing is given back twice, whatever
happens first, and when all events are taken back, exactly what was paid has been given back.

The prepaid balance paid exact amounts, and gets them back exactly. Everything else is paid and
given back in whole minor units. A fraction that the balance cannot take is given back later.
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

    @property
    def paid(self) -> int:
        """What is paid for it, with tax."""
        return sum(self.worth(self.share.amount))

    @property
    def left(self) -> int:
        """What credit notes can still give back of it, in whole minor units and with tax."""
        return max(0, self.share.gross - self.noted - self.given(self.taken.amount))

    def worth(self, taken: int) -> tuple[int, int]:
        """Return what is paid for some of its events: without tax, and their tax."""
        net, tax = self.share.worth(taken)
        return (min(taken, self.share.amount) if self.is_prepaid else net), tax

    def due(self, taken: int) -> int:
        """Return what its events give back if this much of them is taken back; with tax."""
        return min(sum(self.worth(taken)), max(0, self.paid - self.noted))

    def given(self, taken: int) -> int:
        """Return what its events give back as credit notes count it: in whole minor units."""
        return min(sum(self.share.worth(taken)), max(0, self.share.gross - self.noted))


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
    """What is left of an invoice, in 10⁻⁹ of the unit; amounts are with tax.

    Args:
        charge: what is left of all that the invoice charged, as it shows it.
        owed: what the account still owes.
        balance: what may still return to the prepaid balance.
        rest: what is left of all that was paid or is owed, exactly.
        given: what events have given back.
        lost: what credit notes show beyond what they gave back, because the balance had paid less.
    """

    lines: Sequence[LineLeft]
    rate: Fraction
    unit: int
    charge: int
    owed: int
    balance: int
    rest: int
    given: int
    lost: int
    _shown_balance: int

    @property
    def total(self) -> int:
        """What credit notes can still give back: never more than was owed or paid."""
        total = min(self.charge, self.owed + self._shown_balance)
        return min(total, self._whole(self.rest)) if self.owed > self.rest else total

    def tax_in(self, amount: int) -> int:
        """Return the tax in an amount that includes it."""
        return tax_within(amount, rate=self.rate, unit=self.unit)

    def divide(self, amount: int) -> tuple[int, int]:
        """Return what a credit note takes from what is owed, and what returns to the balance."""
        owed = min(amount, self.owed)
        return owed, max(0, min(amount - owed, self.balance, self.rest - owed))

    def give(self, taken: Mapping[LineKey, int]) -> list[Given]:
        """Return what events give back that are taken back now, by line.

        Args:
            taken: the exact sums of these events. Lines that the invoice lacks are left out.
        """
        amounts = {line.key: line.taken.amount for line in self.lines}
        given, balance = self.given, self.balance
        gifts: list[Given] = []
        for line in self.lines:
            amount = taken.get(line.key)
            if amount is None:
                continue
            # Credits of earlier versions may not say whose they are, so `given` lacks them. What is
            # made up for is a fraction of a minor unit.
            given = max(given, self._due(amounts) - self.unit + 1)
            amounts[line.key] += amount
            more = max(0, self._due(amounts, lost=self.lost) - given)
            gift = self._gift(line, amount, more=more, balance=balance)
            given += gift.to_balance + gift.credit
            balance -= gift.to_balance
            gifts.append(gift)
        return gifts

    def _due(self, amounts: Mapping[LineKey, int], *, lost: int = 0) -> int:
        """Return what events give back in all if this much of each line is taken back."""
        due = sum(line.due(amounts[line.key]) for line in self.lines)
        return min(due + lost, self.given + self.rest)

    def _gift(self, line: LineLeft, amount: int, *, more: int, balance: int) -> Given:
        """Divide what is given back: prepaid usage to the balance, as far as that has paid."""
        before = line.taken.amount
        (net, tax), (net_before, tax_before) = map(line.worth, (before + amount, before))
        tax -= tax_before
        is_whole = net - net_before + tax - more < self.unit
        if not is_whole:
            tax = min(tax, self.tax_in(more))
        credit = min(tax, self._whole(more)) if line.is_prepaid else self._whole(more)
        if (over := more - credit - balance) > 0:
            credit = min(credit - self._whole(-over), self._whole(more))
        return Given(
            line.key,
            line.is_prepaid,
            amount,
            to_balance=min(more - credit, balance),
            credit=credit,
            tax=min(tax, credit),
            is_whole=is_whole,
        )

    def _whole(self, amount: int) -> int:
        """Return an amount rounded down to the minor unit."""
        return amount // self.unit * self.unit


def what_is_left(
    invoice: InvoiceRead,
    *,
    notes: Sequence[CreditNote],
    taken: Mapping[LineKey, ReversedSum],
    credited: int,
    prepaid: Collection[str],
) -> InvoiceLeft:
    """Return what is left of an invoice.

    Args:
        notes: all its credit notes.
        taken: what was taken back of its events, by line.
        credited: what credits have given back for its events, with tax.
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
    return _left(invoice, lines, notes=notes, credited=credited, rate=rate, unit=unit)


def _left(
    invoice: InvoiceRead,
    lines: Sequence[LineLeft],
    *,
    notes: Sequence[CreditNote],
    credited: int,
    rate: Fraction,
    unit: int,
) -> InvoiceLeft:
    """Add up what was paid and given back. Credit notes reduce what is owed first."""
    total = parse_amount(invoice.total)
    of_events = sum(note.amount for note in notes if _is_of_events(note))
    others = sum(note.amount for note in notes) - of_events
    to_balance = sum(note.to_balance for note in notes)
    noted = min(of_events + others, total) - of_events + to_balance
    returned = sum(line.taken.returned for line in lines)
    given = returned + credited + of_events

    charged = sum(line.share.gross for line in lines) - others
    shown = sum(parse_amount(each.amount) for each in invoice.credits if each.id == PREPAID)
    shown -= sum(line.share.worth(line.taken.amount)[0] for line in lines if line.is_prepaid)
    shown -= max(0, of_events + others - total)
    paid_by_balance = sum(line.share.amount for line in lines if line.is_prepaid)
    return InvoiceLeft(
        lines,
        rate,
        unit,
        charge=charged - min(charged, sum(line.given(line.taken.amount) for line in lines)),
        owed=max(0, total - of_events - others),
        balance=max(0, paid_by_balance - returned - to_balance),
        rest=max(0, sum(line.paid for line in lines) - noted - given),
        given=given,
        lost=others - noted,
        _shown_balance=max(0, shown),
    )


def _is_of_events(note: CreditNote) -> bool:
    """Return whether a credit note gives back events, which then count as taken back."""
    return any(stored.get("events") for stored in note.lines)
