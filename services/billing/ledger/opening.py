"""Entries for what was stored without one: by versions before the ledger, perhaps just now.

Pods of the version before go on until an update is complete, so this runs in the migration and
again whenever a month is closed. It is safe to repeat: it posts only what is missing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from services.billing.amounts import exact, labelled
from services.billing.bulk_insert import table_of
from services.billing.ledger.entries import (
    OPENING,
    Entry,
    credit_postings,
    make_entry,
    usage_postings,
)
from services.billing.models import Credit, LedgerEntry, LedgerPosting, Plan, Price, UsageEvent


def post_missing(connection: Connection, *, now: datetime) -> int:
    """Post what has no entry yet; return how many entries that took.

    The caller makes sure that no other call runs at the same time.
    """
    return _store(connection, _usage(connection, now=now)) + post_missing_credits(
        connection, now=now
    )


def post_missing_credits(connection: Connection, *, now: datetime) -> int:
    """Post the credits that have no entry yet; return how many entries that took."""
    return _store(connection, _credits(connection, now=now))


def _store(connection: Connection, entries: Sequence[Entry]) -> int:
    for entry in entries:
        stored = connection.execute(insert(table_of(LedgerEntry)).values(entry.row()))
        new = stored.inserted_primary_key
        if new is None:
            raise RuntimeError("the database returned no id")
        connection.execute(insert(table_of(LedgerPosting)), entry.posting_rows(new[0]))
    return len(entries)


def _usage(connection: Connection, *, now: datetime) -> list[Entry]:
    amount = exact(UsageEvent.amount_low, high=UsageEvent.amount_high)
    keys = (Plan.currency, UsageEvent.account, UsageEvent.model, Plan.billing)
    found = connection.execute(
        select(*keys, *amount.total().named("amount"))
        .join(Price, Price.id == UsageEvent.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(UsageEvent.entry_id.is_(None))
        .group_by(*keys)
    )
    charged: defaultdict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
    earned: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        total = labelled(row, "amount").value()
        charged[row.currency][row.account, row.billing == "prepaid"] += total
        earned[row.currency][row.model] += total
    for row in connection.execute(_posted("usage")):
        posted = labelled(row, "amount").value()
        if row.ledger == "revenue":
            earned[row.currency][row.model] += posted
        else:
            charged[row.currency][row.account, row.ledger == "prepaid"] -= posted
    made = [
        make_entry(
            "usage",
            currency=currency,
            reference=OPENING,
            postings=usage_postings(charged[currency], earned[currency]),
            now=now,
        )
        for currency in sorted(charged)
    ]
    return [entry for entry in made if entry is not None]


def _credits(connection: Connection, *, now: datetime) -> list[Entry]:
    amount = exact(Credit.amount_low, high=Credit.amount_high)
    found = connection.execute(
        select(Credit.currency, Credit.account, *amount.total().named("amount"))
        .where(Credit.entry_id.is_(None))
        .group_by(Credit.currency, Credit.account)
    )
    added: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        added[row.currency][row.account] += labelled(row, "amount").value()
    for row in connection.execute(_posted("credit")):
        if row.ledger == "prepaid":
            added[row.currency][row.account] += labelled(row, "amount").value()
    made = [
        make_entry(
            "credit",
            currency=currency,
            reference=OPENING,
            postings=credit_postings(given),
            now=now,
        )
        for currency, given in sorted(added.items())
    ]
    return [entry for entry in made if entry is not None]


def _posted(kind: str) -> Select[Any]:
    """Select what such entries have posted before."""
    amount = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)
    keys = (
        LedgerEntry.currency,
        LedgerPosting.ledger,
        LedgerPosting.account,
        LedgerPosting.model,
    )
    return (
        select(*keys, *amount.total().named("amount"))
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.kind == kind, LedgerEntry.reference == OPENING)
        .group_by(*keys)
    )
