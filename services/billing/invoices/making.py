"""The content of an invoice, from an account's usage and fees of a month. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from services.billing.currencies import minor_unit, rounded
from services.billing.invoices.parties import AppliedTax, Party, Tax
from services.billing.invoices.schemas import (
    CreditLine,
    InvoiceBody,
    LineKind,
    LineRead,
    UnitPrice,
)
from services.billing.invoices.shares import LineKey, LineShare, line_shares
from services.billing.ledger.entries import Posting
from services.billing.models import Plan, Price
from services.billing.plans.fees import Fee
from services.common.contracts import format_amount

PREPAID = "prepaid"
"""The id of the credit that stands for what was paid from the balance."""
RETURNED = "returned"
"""The id of the credit for the tax on usage whose price has returned there."""
STANDING = (PREPAID, RETURNED)
"""The ids of credits that are not stored."""

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
    unposted: int = 0
    """How many of the requests have no ledger entry, from the version before the ledger."""


class Credit(NamedTuple):
    """Money given back that reduces the next invoice."""

    id: str
    reason: str
    net: int
    """Exact and without tax, as it was posted."""
    tax: int
    """The tax on it."""
    amount: int
    """Rounded and with tax, as the invoice shows it."""
    rest: int = 0
    """What is left for the next invoice, rounded and with tax."""
    is_taxed_now: bool = True
    """Whether its tax and rounding are part of this invoice, not of an earlier one."""
    is_due: bool = False
    """Whether this invoice uses it up, though it may leave a remainder."""


class PendingCredit(NamedTuple):
    """Money given back that no invoice has used yet."""

    id: str
    reason: str
    amount: int
    includes_tax: bool
    line: LineKey | None
    """The line of this invoice that it gives back, if it is known."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice; amounts in 10⁻⁹ of the unit."""

    kind: LineKind
    key: LineKey
    """What it is kept by: for a monthly fee, no model and the id of the plan."""
    amount: int
    rounded: int
    price: Price | None = None
    """None for a monthly fee."""
    is_prepaid: bool = False
    versions: tuple[str, ...] = ()
    requests: int = 0
    rows: int = 0
    description: str | None = None


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
    taken_back: Mapping[LineKey, int] = MappingProxyType({}),
    fees: Iterable[Fee] = (),
) -> Draft:
    """Return the invoice of an account's usage and fees of a month.

    Args:
        prices: by id, each with its plan.
        credits: what may reduce it, oldest first; never below zero.
        taken_back: what was taken back of the usage, by line.
        fees: of the month, in the account's currency.
    """
    unit = minor_unit(currency)
    lines = [_line(parts, prices=prices, unit=unit) for parts in _by_line(usage).values()]
    lines += [_fee_line(fee, unit=unit) for fee in fees]
    shares = dict(
        zip(
            (line.key for line in lines),
            line_shares(
                ((line.amount, line.rounded) for line in lines), rate=rate.fraction, unit=unit
            ),
            strict=True,
        )
    )
    tax = sum(share.tax for share in shares.values())
    draft = Draft(account, period, currency, seller, buyer, lines, (), rate, tax)
    due = [
        *_returned(lines, shares, taken_back),
        *shown_credits(credits, shares=shares, rate=rate, unit=unit),
    ]
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
        kind="usage",
        key=LineKey(parts[0].model, price.id),
        price=price,
        is_prepaid=plan.billing == "prepaid",
        versions=tuple(sorted({part.version for part in parts})),
        requests=sum(part.requests for part in parts),
        rows=sum(part.rows for part in parts),
        amount=amount,
        rounded=rounded(amount, unit=unit),
    )


def _fee_line(fee: Fee, *, unit: int) -> Line:
    days = "" if fee.days == fee.month_days else f", {fee.days} of {fee.month_days} days"
    return Line(
        kind="monthly_fee",
        key=LineKey("", fee.plan.id),
        amount=fee.amount,
        rounded=rounded(fee.amount, unit=unit),
        description=f"Monthly fee: {fee.plan.name}{days}",
    )


def _returned(
    lines: Iterable[Line], shares: Mapping[LineKey, LineShare], taken_back: Mapping[LineKey, int]
) -> list[Credit]:
    """Return the credit of the tax on prepaid usage that was taken back."""
    tax = sum(
        shares[line.key].worth(taken_back.get(line.key, 0))[1] for line in lines if line.is_prepaid
    )
    reason = "Tax on usage that was taken back."
    return [Credit(RETURNED, reason, net=0, tax=tax, amount=tax)] if tax else []


def shown_credits(
    credits: Iterable[PendingCredit],
    *,
    shares: Mapping[LineKey, LineShare],
    rate: AppliedTax,
    unit: int,
) -> list[Credit]:
    """Return credits as the invoice shows them.

    What is given back of one line adds up to what its events are worth, in however many parts.
    """
    made: list[Credit] = []
    others: list[PendingCredit] = []
    given: Counter[LineKey] = Counter()
    for credit in credits:
        id_, reason, amount, includes_tax, line = credit
        if includes_tax:
            made.append(Credit(id_, reason, net=0, tax=0, amount=amount, is_taxed_now=False))
        elif line is not None and line in shares:
            before = shares[line].worth(given[line])
            given[line] += amount
            made.append(_difference(credit, before, shares[line].worth(given[line])))
        else:
            others.append(credit)
    return made + _together(others, rate=rate, unit=unit)


def _together(credits: Iterable[PendingCredit], *, rate: AppliedTax, unit: int) -> list[Credit]:
    """Return credits that belong to no line of the invoice, rounded together.

    Those at the end that add nothing wait for more, so that less than a minor unit is not lost.
    """
    made: list[Credit] = []
    total = 0
    for credit in credits:
        before, after = (
            (rounded(net, unit=unit), rounded(rate.fraction * net, unit=unit))
            for net in (total, total + credit.amount)
        )
        total += credit.amount
        made.append(_difference(credit, before, after))
    while made and made[-1].amount == 0:
        made.pop()
    return made


def _difference(credit: PendingCredit, before: tuple[int, int], after: tuple[int, int]) -> Credit:
    """Return a credit that adds to what is given back, each time net and tax."""
    net, tax = after[0] - before[0], after[1] - before[1]
    return Credit(
        credit.id, credit.reason, net=credit.amount, tax=tax, amount=net + tax, is_due=True
    )


def _apply(credits: Iterable[Credit], *, at_most: int) -> tuple[Credit, ...]:
    applied: list[Credit] = []
    for credit in credits:
        amount = min(credit.amount, at_most)
        if amount > 0 or credit.is_due:
            applied.append(credit._replace(amount=amount, rest=credit.amount - amount))
            at_most -= amount
    return tuple(applied)


def invoice_postings(draft: Draft) -> list[Posting]:
    """Return what issuing an invoice moves: monthly fees, tax, and what rounding adds or takes.

    Usage was posted when it arrived, and what was given back when that happened; a credit only
    adds its tax and rounding.
    """
    new = [credit for credit in draft.applied if credit.is_taxed_now]
    tax = draft.tax - sum(credit.tax for credit in new)
    more = sum(line.rounded - line.amount for line in draft.lines if not line.is_prepaid)
    more -= sum(credit.amount + credit.rest - credit.tax - credit.net for credit in new)
    fees = sum(line.amount for line in draft.lines if line.kind == "monthly_fee")
    return [
        Posting("receivable", tax + more + fees, account=draft.account),
        Posting("tax", -tax),
        Posting("rounding", -more),
        Posting("revenue", -fees),
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
            if each.amount
        ],
        subtotal=format_amount(draft.subtotal),
        tax=Tax(rate=draft.rate.rate, amount=format_amount(draft.tax), reason=draft.rate.reason),
        total=format_amount(draft.total),
        rounding=_ROUNDING,
    )


def _credits(draft: Draft) -> list[Credit]:
    paid = Credit(PREPAID, "Paid from the prepaid balance.", 0, 0, draft.from_balance)
    return [paid, *draft.applied]


def _shown(line: Line) -> LineRead:
    return LineRead(
        kind=line.kind,
        model=line.key.model or None,
        price_id=line.key.price_id,
        versions=list(line.versions),
        requests=line.requests,
        rows=line.rows,
        unit_prices=[
            UnitPrice(
                up_to_requests=tier.up_to_requests,
                per_request=format_amount(tier.per_request),
                per_row=format_amount(tier.per_row),
            )
            for tier in (line.price.tiers if line.price else ())
        ],
        included_requests=line.price.included_requests if line.price else 0,
        description=line.description,
        amount=format_amount(line.amount),
        rounded=format_amount(line.rounded),
    )


def line_values(line: Line, number: int) -> dict[str, Any]:
    """Return the values of a line that are stored in columns of their own."""
    return {
        "line": number,
        "kind": line.kind,
        **line.key._asdict(),
        "requests": line.requests,
        "rows": line.rows,
        "amount": line.amount,
        "rounded": line.rounded,
    }
