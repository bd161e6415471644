"""Sums of what was taken back, by the line of an invoice."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.invoices import repository
from services.billing.invoices.shares import LineKey


class ReversedSum(NamedTuple):
    """What was taken back of a line's events, and what of it returned to the balance."""

    amount: int = 0
    returned: int = 0


async def add_reversed(
    session: AsyncSession, *, account: str, period: str, sums: Mapping[LineKey, ReversedSum]
) -> None:
    """Add to the sums of what was taken back of a month; the account is locked."""
    await repository.add_reversed(
        session,
        rows=[
            {"account": account, "period": period, **line._asdict(), **each._asdict()}
            for line, each in sums.items()
        ],
    )


async def find_reversed(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> dict[str, dict[LineKey, ReversedSum]]:
    """Return what was taken back of a month, by account and line."""
    found: dict[str, dict[LineKey, ReversedSum]] = {}
    for each in await repository.find_reversed(session, accounts=accounts, period=period):
        key = LineKey(each.model, each.price_id)
        found.setdefault(each.account, {})[key] = ReversedSum(each.amount, each.returned)
    return found
