"""What is left of an invoice: whatever the order of things, it is given back once."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from services.billing.corrections.left import InvoiceLeft, what_is_left
from services.billing.corrections.models import CreditNote
from services.billing.currencies import rounded
from services.billing.invoices.making import PREPAID
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.reversals import ReversedSum
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.shares import LineKey
from services.common.contracts import format_amount, parse_amount

UNIT = 10**7
RATES = ["0", "0.19", "19.6"]


class Line(NamedTuple):
    amount: int
    is_prepaid: bool


class Step(NamedTuple):
    """A credit note of an amount or a line, or events taken back with a credit note or without."""

    door: str
    line: int
    share: int
    """How much of what is left, in hundredths; of a line's events for the last two doors."""


lines_of = st.lists(
    st.builds(Line, amount=st.integers(100 * UNIT, 4000 * UNIT), is_prepaid=st.just(False)),
    min_size=1,
    max_size=3,
)
steps_of = st.lists(
    st.builds(
        Step,
        door=st.sampled_from(["amount", "line", "recall", "adjustment"]),
        line=st.integers(0, 2),
        share=st.sampled_from([1, 10, 33, 50, 99, 100]),
    ),
    max_size=10,
)


def invoice_of(lines: list[Line], rate: str, credit: int) -> InvoiceRead:
    """Return an invoice; a credit of an earlier month has reduced it."""
    exact = [line.amount for line in lines]
    in_units = [rounded(amount, unit=UNIT) for amount in exact]
    subtotal = sum(in_units)
    tax = rounded(AppliedTax(rate=rate, reason="").fraction * subtotal, unit=UNIT)
    paid = sum(each for each, line in zip(in_units, lines, strict=True) if line.is_prepaid)
    applied = min(credit, subtotal + tax - paid)
    party = {"name": "Somebody"}
    return InvoiceRead.model_validate(
        {
            "id": "an invoice",
            "number": "INV-000001",
            "issued_at": "2026-11-10T12:00:00Z",
            "account": "an account",
            "period": "2026-10",
            "currency": "USD",
            "seller": party,
            "buyer": party,
            "lines": [
                {
                    "kind": "usage",
                    "model": "wine",
                    "price_id": str(number),
                    "versions": [],
                    "requests": 1,
                    "rows": 1,
                    "unit_prices": [],
                    "included_requests": 0,
                    "amount": format_amount(exact[number]),
                    "rounded": format_amount(in_units[number]),
                }
                for number in range(len(lines))
            ],
            "credits": [
                {"id": PREPAID, "reason": "", "amount": format_amount(paid)},
                {"id": "earlier", "reason": "", "amount": format_amount(applied)},
            ],
            "subtotal": format_amount(subtotal),
            "tax": {"rate": rate, "amount": format_amount(tax), "reason": ""},
            "total": format_amount(subtotal + tax - paid - applied),
            "rounding": "",
        }
    )


class Game:
    """An invoice, and what was given back of it: by line, and in total."""

    def __init__(self, lines: list[Line], invoice: InvoiceRead) -> None:
        self.lines, self.invoice = lines, invoice
        self.notes: list[CreditNote] = []
        self.taken = {LineKey("wine", str(n)): ReversedSum() for n in range(len(lines))}
        self.by_line = [0] * len(lines)
        self.total = 0

    def left(self) -> InvoiceLeft:
        prepaid = {str(n) for n, line in enumerate(self.lines) if line.is_prepaid}
        return what_is_left(self.invoice, notes=self.notes, taken=self.taken, prepaid=prepaid)

    def note(self, amount: int, *, line: int | None = None, is_of_events: bool = False) -> None:
        left = self.left()
        to_balance = min(amount - min(amount, left.owed), left.balance)
        flag = {"events": True} if is_of_events else {}
        parts = [] if line is None else [{"line": line, "amount": format_amount(amount)} | flag]
        self.notes.append(
            CreditNote(
                amount_high=0,
                amount_low=amount,
                to_balance_high=0,
                to_balance_low=to_balance,
                lines=parts,
            )
        )
        self.total += amount
        if line is not None:
            self.by_line[line] += amount

    def take_back(self, line: int, amount: int, *, with_note: bool) -> None:
        key = LineKey("wine", str(line))
        left = self.left()
        (gift,) = left.give({key: amount})
        noted = min(gift.credit, left.owed) if with_note else 0
        if noted:
            self.note(noted, line=line, is_of_events=True)
        old = self.taken[key]
        self.taken[key] = ReversedSum(old.amount + amount, old.returned + gift.to_balance)
        more = gift.to_balance + gift.credit - noted
        self.by_line[line] += more
        self.total += more

    def play(self, step: Step) -> None:
        line, left = step.line % len(self.lines), self.left()
        if step.door in ("amount", "line"):
            most = left.total if step.door == "amount" else min(left.total, left.lines[line].left)
            amount = rounded(most * step.share // 100, unit=UNIT)
            if 0 < amount <= most:
                self.note(amount, line=line if step.door == "line" else None)
            return
        rest = self.lines[line].amount - self.taken[LineKey("wine", str(line))].amount
        self.take_back(line, rest * step.share // 100, with_note=step.door == "adjustment")


@given(
    lines=lines_of,
    rate=st.sampled_from(RATES),
    credit=st.sampled_from([0, UNIT, 2500 * UNIT]),
    steps=steps_of,
)
def test_each_line_and_the_invoice_are_given_back_once(
    lines: list[Line], rate: str, credit: int, steps: list[Step]
) -> None:
    game = Game(lines, invoice_of(lines, rate, credit))
    gross = [line.share.gross for line in game.left().lines]
    for step in steps:
        game.play(step)

        assert game.total <= sum(gross)
        for number, given_back in enumerate(game.by_line):
            assert given_back <= gross[number]

    for number in range(len(lines)):
        game.play(Step("adjustment", number, 100))
    assert game.total == sum(gross)
    assert parse_amount(game.invoice.total) >= 0
