"""Verify the ledger: each entry by itself, and against what it was posted for.

Every cell is covered. The digest of an entry fixes its own columns and those of its postings; the
sums compare it with the usage events and credits that name it. Usage has nearly as many sums by
entry as it has events, so on MySQL and MariaDB their fingerprint is compared first.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    case,
    cast,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing import amounts
from services.billing.amounts import Exact, differing, exact, labelled
from services.billing.archives.models import is_not_archived
from services.billing.archives.verifying import ArchivedEvents, find_prepaid_prices
from services.billing.fingerprints import Weights
from services.billing.ledger.entries import OPENING, digest
from services.billing.models import Credit, LedgerEntry, LedgerPosting, Plan, Price, UsageEvent
from services.common.contracts import format_amount

_ENTRIES_AT_ONCE = 100
_LINES_AT_ONCE = 1000
"""As text, they have at most 200 kB."""
_POSTED = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)
_ENTRY = case((LedgerEntry.reference == OPENING, 0), else_=LedgerEntry.id)
"""Events that were stored without an entry are in that of the opening."""
_ARCHIVED_LEDGER = (
    "CASE WHEN list_contains($prepaid, price_id) THEN 'prepaid' ELSE 'receivable' END"
)
"""The ledger of what an archived event was paid with."""


class LedgerFingerprint(NamedTuple):
    """The fingerprint of what usage events posted, by entry, and by account and model.

    Args:
        prepaid: the ids of prepaid prices.
    """

    weights: Weights
    prepaid: Sequence[str]

    def of_event(self) -> ColumnElement[int]:
        """Return what an event of at most 64 bits adds, as SQL."""
        event, weight = UsageEvent, self.weights.of
        entry = func.coalesce(event.entry_id, 0)
        ledger = case((event.price_id.in_(self.prepaid), "prepaid"), else_="receivable")
        both = weight(entry, ledger, event.account) + weight(entry, "revenue", event.model)
        return event.amount_low * both

    async def of_postings(self, connection: AsyncConnection) -> int | None:
        """Return that of all postings; None if one needs more than 64 bits."""
        line = LedgerPosting
        owner = case((line.ledger == "revenue", line.model), else_=line.account)
        sign = case((line.ledger == "revenue", -1), else_=1)
        part = self.weights.of(_ENTRY, line.ledger, owner) * sign * line.amount_low
        found = await connection.execute(
            select(func.sum(part), func.max(case((line.amount_high != 0, 1), else_=0)))
            .join(LedgerEntry, LedgerEntry.id == line.entry_id)
            .where(LedgerEntry.kind == "usage")
        )
        total, is_large = found.one()
        return None if is_large else int(total or 0)

    async def of_archived(self, archived: ArchivedEvents) -> int:
        """Return that of all archived events."""
        total = 0
        weight = self.weights.value
        keys = ("entry_id", _ARCHIVED_LEDGER, "account", "model")
        async for (entry, ledger, account, model), amount in archived.amounts(keys):
            total += amount * (weight(entry, ledger, account) + weight(entry, "revenue", model))
        return total


async def ledger_fingerprint(connection: AsyncConnection, weights: Weights) -> LedgerFingerprint:
    """Return the fingerprint of what usage events posted."""
    return LedgerFingerprint(weights, await find_prepaid_prices(connection))


async def verify_ledger(
    connection: AsyncConnection,
    archived: ArchivedEvents,
    *,
    fingerprint: LedgerFingerprint | None,
    events: int | None,
) -> list[str]:
    """Return a sentence for each difference, but for those that entries show by themselves.

    Args:
        events: the fingerprint of all events in the database, if it is known.
    """
    return [
        *await _orphans(connection),
        *await _usage(connection, archived, fingerprint, events),
        *await _credits(connection),
    ]


async def _usage(
    connection: AsyncConnection,
    archived: ArchivedEvents,
    fingerprint: LedgerFingerprint | None,
    events: int | None,
) -> list[str]:
    """Check that usage entries are the sums of their events, by account and by model."""
    if fingerprint is not None and events is not None:
        posted = await fingerprint.of_postings(connection)
        if posted == events + await fingerprint.of_archived(archived):
            return []
    return [
        *await _usage_by(connection, archived, by="account"),
        *await _usage_by(connection, archived, by="model"),
    ]


async def verify_entries(connection: AsyncConnection) -> list[str]:
    """Check that each entry is balanced and unchanged; return a sentence for each that is not."""
    entry = LedgerEntry
    columns = (
        entry.id,
        entry.kind,
        entry.currency,
        entry.reference,
        entry.created_at,
        entry.digest,
    )
    pages = select(*columns).order_by(entry.id).limit(_ENTRIES_AT_ONCE)
    differences: list[str] = []
    last = -(2**63)
    while heads := (await connection.execute(pages.where(entry.id > last))).all():
        last = heads[-1].id
        lines = await _lines(connection, first=heads[0].id, last=last)
        for head in heads:
            mine = sorted(lines[head.id])
            if not mine or sum(line[-1] for line in mine) != 0:
                differences.append(f"ledger: entry {head.id}: the postings do not add up to zero")
            if digest(head[1:5], mine) != head.digest:
                differences.append(f"ledger: entry {head.id}: has been changed")
    return differences


_Line = tuple[int, str, int]
"""Number of a posting; ledger, account and model as they are digested; and amount."""


async def _lines(
    connection: AsyncConnection, *, first: int, last: int
) -> defaultdict[int, list[_Line]]:
    """Return the postings of some entries, in any order.

    Many come as one text, because the driver takes several microseconds for each row.
    """
    line = LedgerPosting
    parts = [cast(line.line, String(20)), line.ledger, line.account, line.model]
    parts += [cast(line.amount_high, String(20)), cast(line.amount_low, String(20))]
    packed = reduce(lambda before, part: before + literal("\t") + part, parts)
    found = await connection.execute(
        select(line.entry_id, func.aggregate_strings(packed, "\n"))
        .where(line.entry_id.between(first, last))
        .group_by(line.entry_id, line.line // _LINES_AT_ONCE)
    )
    lines: defaultdict[int, list[_Line]] = defaultdict(list)
    for entry_id, text_of in found:
        lines[entry_id] += map(_line_of, text_of.split("\n"))
    return lines


def _line_of(packed: str) -> _Line:
    """Return a packed posting; one with a separator in a name is wrong in any case."""
    try:
        number, *names, high, low = packed.split("\t")
        return int(number), "\t".join(names), amounts.join(int(high), int(low))
    except ValueError:
        return -1, packed, 0


async def _orphans(connection: AsyncConnection) -> list[str]:
    found = await connection.execute(
        select(LedgerPosting.entry_id)
        .distinct()
        .outerjoin(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(LedgerEntry.id.is_(None))
        .order_by(LedgerPosting.entry_id)
    )
    return [f"ledger: entry {entry} is missing, but has postings" for (entry,) in found]


async def _usage_by(connection: AsyncConnection, archived: ArchivedEvents, *, by: str) -> list[str]:
    """Report where usage entries are not the sums of their events, by account or by model."""
    found = await archived.differences(
        connection,
        _usage_differences(by),
        keys={
            "entry": "entry_id",
            "ledger": _ARCHIVED_LEDGER if by == "account" else "'revenue'",
            "owner": by,
        },
        sums={"amount": "-amount" if by == "account" else "amount"},
    )
    return [
        f"ledger: entry {OPENING if entry == '0' else entry}: {name}, {by} {owner}: differs from "
        f"the usage events by {format_amount(amount)}"
        for (entry, name, owner), (amount,) in found
    ]


@cache
def _usage_differences(by: str) -> Select[Any]:
    what = LedgerPosting.account if by == "account" else LedgerPosting.model
    amount = exact(UsageEvent.amount_low, high=UsageEvent.amount_high).total()
    ledger: ColumnElement[str] = case(
        (Plan.billing == "prepaid", literal("prepaid")), else_=literal("receivable")
    )
    if by == "account":
        kept, owner = LedgerPosting.ledger != "revenue", UsageEvent.account
    else:
        kept, ledger, owner = (
            LedgerPosting.ledger == "revenue",
            literal("revenue"),
            UsageEvent.model,
        )
        amount = amount.minus()
    keys = (func.coalesce(UsageEvent.entry_id, 0), ledger, owner)
    events = (
        _line(*keys, amount)
        .select_from(UsageEvent)
        .join(Price, Price.id == UsageEvent.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(is_not_archived())
        .group_by(UsageEvent.entry_id, Plan.billing, owner)
    )
    return _differing(events, _negative_postings("usage", what, kept))


async def _credits(connection: AsyncConnection) -> list[str]:
    """Check that the entries of credits are what was credited."""
    found = await connection.execute(_credit_differences())
    return [
        f"ledger: entry {row.entry or OPENING}: {row.ledger}, account {row.owner}: differs from "
        f"the credits by {format_amount(labelled(row, 'amount').value())}"
        for row in found
    ]


@cache
def _credit_differences() -> Select[Any]:
    amount = exact(Credit.amount_low, high=Credit.amount_high).minus()
    credits = _line(func.coalesce(Credit.entry_id, 0), literal("prepaid"), Credit.account, amount)
    postings = _negative_postings(
        "credit", LedgerPosting.account, LedgerPosting.ledger != "promotional"
    )
    return _differing(credits, postings)


def _negative_postings(kind: str, owner: Any, kept: ColumnElement[bool]) -> Select[Any]:
    return (
        _line(_ENTRY, LedgerPosting.ledger, owner, _POSTED.minus())
        .select_from(LedgerEntry)
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.kind == kind, kept)
    )


def _line(entry: Any, ledger: Any, owner: Any, amount: Exact) -> Select[Any]:
    return select(
        entry.label("entry"),
        ledger.label("ledger"),
        owner.label("owner"),
        *amount.named("amount"),
    )


def _differing(one: Select[Any], other: Select[Any]) -> Select[Any]:
    """Select the sums of two selections, one of them negated, that are not zero."""
    both = union_all(one, other).subquery()
    keys = (both.c.entry, both.c.ledger, both.c.owner)
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(*keys, *total).group_by(*keys).subquery()
    order = (text("entry"), text("ledger"), text("owner"))
    return differing(sums, "amount").order_by(*order)
