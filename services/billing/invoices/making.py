"""What an invoice says, from an account's usage of a month. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.billing.currencies import minor_unit, rounded
from services.billing.invoices.parties import AppliedTax, Party, Tax
from services.billing.invoices.schemas import CreditLine, InvoiceBody, LineRead, UnitPrice
from services.billing.ledger.entries import Posting
from services.billing.models import Plan, Price
from services.common.contracts import format_amount

PREPAID = "prepaid"
"""The id of the credit that stands for what was paid from the balance."""

_ROUNDING = (
    "Each line is rounded once to the currency's minor unit, half to even; tax likewise. Amounts "
    "before rounding are exact to 10⁻⁹."
)


class Usage(NamedTuple):
    """What an account used of one version of a model in a month, under one price."""

    account: str
    model: str
    price_id: str
    version: str
    requests: int
    rows: int
    amount: int


class Credit(NamedTuple):
    """Money given back that reduces the next invoice."""

    id: str
    reason: str
    net: int
    """Exact and without tax, as it was posted; 0 if it was posted with an earlier invoice."""
    tax: int
    """The tax on it."""
    amount: int
    """Rounded and with tax, as the invoice shows it."""
    rest: int = 0
    """What is left for the next invoice, rounded and with tax."""


class PendingCredit(NamedTuple):
    """Money given back that no invoice has used yet."""

    id: str
    reason: str
    amount: int
    includes_tax: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice; amounts in 10⁻⁹ of the unit."""

    model: str
    price: Price
    is_prepaid: bool
    versions: tuple[str, ...]
    requests: int
    rows: int
    amount: int
    rounded: int


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice without a number; amounts in 10⁻⁹ of the unit."""

    account: str
    period: str
    currency: str
    seller: Party
    buyer: Party
    lines: Sequence[Line]
    applied: Sequence[Credit]
    """The credits that reduce it, some of the last perhaps only in part."""
    rate: AppliedTax
    tax: int

    @property
    def subtotal(self) -> int:
        """The sum of the rounded lines."""
        return sum(line.rounded for line in self.lines)

    @property
    def from_balance(self) -> int:
        """What was paid from the prepaid balance when it was used."""
        return sum(line.rounded for line in self.lines if line.is_prepaid)

    @property
    def total(self) -> int:
        """What the buyer has to pay."""
        credited = sum(credit.amount for credit in self.applied)
        return self.subtotal + self.tax - self.from_balance - credited


def make_draft(
    usage: Sequence[Usage],
    *,
    account: str,
    period: str,
    currency: str,
    prices: Mapping[str, tuple[Plan, Price]],
    seller: Party,
    buyer: Party,
    rate: AppliedTax,
    credits: Iterable[PendingCredit] = (),
) -> Draft:
    """Return the invoice of an account's usage of a month.

    Args:
        prices: by id, each with its plan.
        credits: what may reduce it, oldest first; never below zero.
    """
    unit = minor_unit(currency)
    lines = [_line(parts, prices=prices, unit=unit) for parts in _by_line(usage).values()]
    subtotal = sum(line.rounded for line in lines)
    tax = rounded(rate.fraction * subtotal, unit=unit)
    draft = Draft(account, period, currency, seller, buyer, lines, (), rate, tax)
    due = [_with_tax(credit, rate=rate, unit=unit) for credit in credits]
    applied = _apply(due, at_most=draft.total)
    return Draft(account, period, currency, seller, buyer, lines, applied, rate, tax)


def _by_line(usage: Sequence[Usage]) -> dict[tuple[str, str], list[Usage]]:
    lines: dict[tuple[str, str], list[Usage]] = {}
    for part in sorted(usage):
        lines.setdefault((part.model, part.price_id), []).append(part)
    return lines


def _line(parts: Sequence[Usage], *, prices: Mapping[str, tuple[Plan, Price]], unit: int) -> Line:
    plan, price = prices[parts[0].price_id]
    amount = sum(part.amount for part in parts)
    return Line(
        model=parts[0].model,
        price=price,
        is_prepaid=plan.billing == "prepaid",
        versions=tuple(sorted({part.version for part in parts})),
        requests=sum(part.requests for part in parts),
        rows=sum(part.rows for part in parts),
        amount=amount,
        rounded=rounded(amount, unit=unit),
    )


def _with_tax(credit: PendingCredit, *, rate: AppliedTax, unit: int) -> Credit:
    if credit.includes_tax:
        return Credit(credit.id, credit.reason, net=0, tax=0, amount=credit.amount)
    tax = rounded(rate.fraction * credit.amount, unit=unit)
    gross = rounded(credit.amount, unit=unit) + tax
    return Credit(credit.id, credit.reason, net=credit.amount, tax=tax, amount=gross)


def _apply(credits: Iterable[Credit], *, at_most: int) -> tuple[Credit, ...]:
    applied: list[Credit] = []
    for credit in credits:
        amount = min(credit.amount, at_most)
        if amount > 0:
            applied.append(credit._replace(amount=amount, rest=credit.amount - amount))
            at_most -= amount
    return tuple(applied)


def invoice_postings(draft: Draft) -> list[Posting]:
    """Return what issuing an invoice moves: tax, and what rounding adds or takes.

    Usage was posted when it arrived, and what was given back when that happened; a credit only
    adds its tax and rounding.
    """
    new = [credit for credit in draft.applied if credit.net]
    tax = draft.tax - sum(credit.tax for credit in new)
    more = sum(line.rounded - line.amount for line in draft.lines if not line.is_prepaid)
    more -= sum(credit.amount + credit.rest - credit.tax - credit.net for credit in new)
    return [
        Posting("receivable", tax + more, account=draft.account),
        Posting("tax", -tax),
        Posting("rounding", -more),
    ]


def as_body(draft: Draft) -> InvoiceBody:
    """Return an invoice as the API shows it."""
    return InvoiceBody(
        account=draft.account,
        period=draft.period,
        currency=draft.currency,
        seller=draft.seller,
        buyer=draft.buyer,
        lines=[_shown(line) for line in draft.lines],
        credits=[
            CreditLine(id=each.id, reason=each.reason, amount=format_amount(each.amount))
            for each in _credits(draft)
        ],
        subtotal=format_amount(draft.subtotal),
        tax=Tax(rate=draft.rate.rate, amount=format_amount(draft.tax), reason=draft.rate.reason),
        total=format_amount(draft.total),
        rounding=_ROUNDING,
    )


def _credits(draft: Draft) -> list[Credit]:
    paid = Credit(PREPAID, "Paid from the prepaid balance.", 0, 0, draft.from_balance)
    return [*([paid] if paid.amount else []), *draft.applied]


def _shown(line: Line) -> LineRead:
    return LineRead(
        kind="usage",
        model=line.model,
        price_id=line.price.id,
        versions=list(line.versions),
        requests=line.requests,
        rows=line.rows,
        unit_prices=[
            UnitPrice(
                up_to_requests=tier.up_to_requests,
                per_request=format_amount(tier.per_request),
                per_row=format_amount(tier.per_row),
            )
            for tier in line.price.tiers
        ],
        included_requests=line.price.included_requests,
        amount=format_amount(line.amount),
        rounded=format_amount(line.rounded),
    )


def line_values(line: Line, number: int) -> dict[str, Any]:
    """Return the values of a line that are stored in columns of their own."""
    return {
        "line": number,
        "kind": "usage",
        "model": line.model,
        "price_id": line.price.id,
        "requests": line.requests,
        "rows": line.rows,
        "amount": line.amount,
        "rounded": line.rounded,
    }
