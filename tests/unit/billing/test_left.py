"""What is left of an invoice: whatever the order of things, exactly what was paid is given back."""

from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from services.billing.corrections.left import InvoiceLeft, what_is_left
from services.billing.corrections.models import CreditNote
from services.billing.currencies import rounded
from services.billing.invoices.making import PREPAID
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.reversals import ReversedSum
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.shares import LineKey
from services.common.contracts import format_amount

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
    st.builds(Line, amount=st.integers(1, 4000 * UNIT), is_prepaid=st.booleans()),
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
    """An invoice, and what was given back of it: by line, in total, and to the balance."""

    def __init__(self, lines: list[Line], invoice: InvoiceRead) -> None:
        self.lines, self.invoice = lines, invoice
        self.notes: list[CreditNote] = []
        self.taken = {LineKey("wine", str(n)): ReversedSum() for n in range(len(lines))}
        self.credited = 0
        self.by_line = [0] * len(lines)
        self.total = 0
        self.to_balance = 0

    def left(self) -> InvoiceLeft:
        prepaid = {str(n) for n, line in enumerate(self.lines) if line.is_prepaid}
        return what_is_left(
            self.invoice,
            notes=self.notes,
            taken=self.taken,
            credited=self.credited,
            prepaid=prepaid,
        )

    def note(self, amount: int, *, line: int | None = None, is_of_events: bool = False) -> None:
        owed, to_balance = self.left().divide(amount)
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
        self.total += owed + to_balance
        self.to_balance += to_balance
        if line is not None:
            self.by_line[line] += owed + to_balance

    def take_back(self, line: int, amount: int, *, with_note: bool) -> None:
        key = LineKey("wine", str(line))
        left = self.left()
        (gift,) = left.give({key: amount})
        assert gift.credit % UNIT == 0
        noted = min(gift.credit, left.owed) if with_note else 0
        if noted:
            self.note(noted, line=line, is_of_events=True)
        old = self.taken[key]
        self.taken[key] = ReversedSum(old.amount + amount, old.returned + gift.to_balance)
        self.credited += gift.credit - noted
        more = gift.to_balance + gift.credit - noted
        self.by_line[line] += more
        self.total += more
        self.to_balance += gift.to_balance

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


def prepaid(*amounts: int) -> list[Line]:
    return [Line(amount, is_prepaid=True) for amount in amounts]


@example(  # once a cent too much
    lines=prepaid(1_595_352_082, 1_595_352_082, 1_595_352_082),
    rate="0",
    credit=0,
    steps=[
        Step("line", 0, 1),
        Step("amount", 1, 99),
        Step("adjustment", 2, 10),
        Step("line", 0, 1),
        Step("recall", 2, 99),
        Step("recall", 0, 50),
        Step("adjustment", 1, 99),
    ],
)
@example(  # once two cents too little
    lines=prepaid(1_054_830_128, 10_323_333_574, 1_054_830_128),
    rate="19.6",
    credit=25_000_000_000,
    steps=[
        Step("recall", 2, 10),
        Step("adjustment", 1, 99),
        Step("adjustment", 2, 99),
        Step("recall", 2, 10),
        Step("line", 0, 99),
        Step("amount", 1, 1),
        Step("adjustment", 1, 1),
        Step("line", 2, 33),
        Step("adjustment", 0, 10),
        Step("line", 2, 33),
    ],
)
@given(
    lines=lines_of,
    rate=st.sampled_from(RATES),
    credit=st.sampled_from([0, UNIT, 2500 * UNIT]),
    steps=steps_of,
)
def test_exactly_what_was_paid_is_given_back_once(
    lines: list[Line], rate: str, credit: int, steps: list[Step]
) -> None:
    game = Game(lines, invoice_of(lines, rate, credit))
    paid = [line.paid for line in game.left().lines]
    paid_by_balance = sum(line.amount for line in lines if line.is_prepaid)
    for step in steps:
        game.play(step)

        assert game.total <= sum(paid)
        assert game.to_balance <= paid_by_balance
        for number, given_back in enumerate(game.by_line):
            # A line may also get the fraction of a minor unit that another one lacks.
            assert given_back < paid[number] + (UNIT if paid_by_balance else 1)

    for number in range(len(lines)):
        game.play(Step("adjustment", number, 100))
    assert game.total == sum(paid)
    assert game.left().total == 0
