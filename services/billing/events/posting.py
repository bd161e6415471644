"""The ledger entries of a batch: one per currency, whatever its number of events. Pure functions.

It has one posting per account and one per model. Each event keeps the id of its entry, so that both
sides can be traced (docs/adr/0018).
"""

from collections import Counter, defaultdict
from datetime import datetime

from services.billing.events.rating import Rating
from services.billing.ledger.entries import Entry, make_entry, usage_postings


def usage_entries(rating: Rating, *, now: datetime) -> list[Entry]:
    """Return the entries of a batch's accepted events; free events alone have none."""
    offers = {rated.offer.month.price_id: rated.offer for rated in rating.accepted}
    charged: defaultdict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
    earned: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for key, sums in rating.hours.items():
        offer = offers[key.price_id]
        charged[offer.currency][key.account, offer.is_prepaid] += sums.amount
        earned[offer.currency][key.model] += sums.amount
    made = [
        make_entry(
            "usage",
            currency=currency,
            postings=usage_postings(charged[currency], earned[currency]),
            now=now,
        )
        for currency in sorted(charged)
    ]
    return [entry for entry in made if entry is not None]
