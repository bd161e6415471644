"""Entries of the ledger: always balanced, and fixed by their digest."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.ledger.entries import (
    Posting,
    credit_postings,
    make_entry,
    usage_postings,
)

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def test_an_unbalanced_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="do not add up to zero"):
        make_entry("usage", currency="USD", postings=[Posting("prepaid", 1)], now=NOON)


def test_an_unknown_ledger_is_refused() -> None:
    postings = [Posting("prepaid", 1), Posting("cash", -1)]  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="unknown ledger"):
        make_entry("usage", currency="USD", postings=postings, now=NOON)


def test_nothing_is_posted_where_nothing_moves() -> None:
    assert make_entry("usage", currency="USD", postings=[Posting("tax", 0)], now=NOON) is None


@given(st.dictionaries(st.tuples(st.text(), st.booleans()), st.integers(0, 2**70), min_size=1))
def test_usage_debits_what_it_credits(charged: dict[tuple[str, bool], int]) -> None:
    postings = usage_postings(charged, {"wine": sum(charged.values())})

    assert sum(posting.amount for posting in postings) == 0


@given(st.dictionaries(st.text(), st.integers(1, 2**70), min_size=1))
def test_a_credit_is_owed_to_its_account(credits: dict[str, int]) -> None:
    entry = make_entry("credit", currency="USD", postings=credit_postings(credits), now=NOON)

    assert entry is not None
    owed = {each.account: -each.amount for each in entry.postings if each.ledger == "prepaid"}
    assert owed == credits


def test_the_digest_depends_on_every_part() -> None:
    postings = [Posting("receivable", 5, account="a"), Posting("revenue", -5, model="m")]
    same = make_entry("usage", currency="USD", postings=postings, now=NOON)
    others = [
        make_entry("usage", currency="EUR", postings=postings, now=NOON),
        make_entry("usage", currency="USD", reference="r", postings=postings, now=NOON),
        make_entry("usage", currency="USD", postings=postings[::-1], now=NOON),
        make_entry("usage", currency="USD", postings=postings, now=NOON.replace(hour=1)),
    ]

    assert same is not None
    assert len({same.digest, *(each.digest for each in others if each)}) == 5
