"""Entries of the ledger: what moves between its accounts. Pure functions.

A debit is positive and a credit negative, so the postings of an entry add up to zero.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

from services.billing import amounts

Ledger = Literal[
    "receivable", "prepaid", "promotional", "revenue", "tax", "payments", "adjustments", "rounding"
]
"""The accounts of the ledger, described in docs/billing.md."""

Kind = Literal["usage", "credit", "invoice", "credit_note", "adjustment", "recall", "correction"]
"""What causes an entry."""

OPENING = "opening"
"""The reference of entries for what was stored without one, by the version before the ledger."""

_LEDGERS = frozenset(get_args(Ledger))


class Posting(NamedTuple):
    """A debit (positive) or credit (negative) of one account of the ledger."""

    ledger: Ledger
    amount: int
    account: str = ""
    model: str = ""


class Entry(NamedTuple):
    """A balanced entry, not stored yet."""

    kind: Kind
    currency: str
    reference: str
    created_at: datetime
    postings: tuple[Posting, ...]

    @property
    def digest(self) -> str:
        """The digest that is stored with it."""
        return digest(
            (self.kind, self.currency, self.reference, self.created_at),
            (
                (line, each.ledger, each.account, each.model, each.amount)
                for line, each in enumerate(self.postings)
            ),
        )

    def row(self) -> dict[str, Any]:
        """Return its row in `ledger_entries`, which gives it an id."""
        return {
            "kind": self.kind,
            "currency": self.currency,
            "reference": self.reference,
            "created_at": self.created_at,
            "digest": self.digest,
        }

    def posting_rows(self, entry_id: int) -> list[dict[str, Any]]:
        """Return the rows of its postings."""
        return [
            {
                "entry_id": entry_id,
                "line": line,
                "ledger": each.ledger,
                "account": each.account,
                "model": each.model,
                **amounts.columns("amount", each.amount),
            }
            for line, each in enumerate(self.postings)
        ]


def make_entry(
    kind: Kind, *, currency: str, reference: str = "", postings: Iterable[Posting], now: datetime
) -> Entry | None:
    """Return an entry, or None if nothing moves.

    Raises:
        ValueError: the postings do not add up to zero, or name an unknown ledger.
    """
    moved = tuple(each for each in postings if each.amount)
    if sum(each.amount for each in moved) != 0:
        raise ValueError(f"the postings of a {kind} entry do not add up to zero")
    if not _LEDGERS.issuperset(each.ledger for each in moved):
        raise ValueError(f"a {kind} entry names an unknown ledger")
    return Entry(kind, currency, reference, now, moved) if moved else None


def digest(header: tuple[str, str, str, datetime], lines: Iterable[tuple[object, ...]]) -> str:
    """Return the digest of an entry.

    Args:
        header: kind, currency, reference and time.
        lines: number, ledger, account, model and amount of each posting, in order.
    """
    *words, moment = header
    rows = chain(((*words, moment.isoformat()),), lines)
    text = "\n".join("\t".join(map(str, row)) for row in rows)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def usage_postings(
    charged: Mapping[tuple[str, bool], int], earned: Mapping[str, int]
) -> list[Posting]:
    """Return the postings of usage.

    Args:
        charged: what each account is charged, by account and whether it is prepaid.
        earned: the revenue of each model; the same in total.
    """
    return [
        *(
            Posting("prepaid" if is_prepaid else "receivable", amount, account=account)
            for (account, is_prepaid), amount in sorted(charged.items())
        ),
        *(Posting("revenue", -amount, model=model) for model, amount in sorted(earned.items())),
    ]


def credit_postings(credits: Mapping[str, int]) -> list[Posting]:
    """Return the postings of prepaid money that was added without a payment, by account."""
    return [
        *(Posting("promotional", amount, account=who) for who, amount in sorted(credits.items())),
        *(Posting("prepaid", -amount, account=who) for who, amount in sorted(credits.items())),
    ]
