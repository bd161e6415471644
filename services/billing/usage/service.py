"""Usage added up, and receipts in pages."""

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Hashable
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import find_currencies
from services.billing.csv_text import csv_lines
from services.billing.models import Receipt
from services.billing.plans.service import read_price_book
from services.billing.usage import repository
from services.billing.usage.repository import HOUR, PageEnd, Part, Sums
from services.billing.usage.schemas import (
    ModelBucket,
    ReceiptPage,
    ReceiptRead,
    TimeBucket,
    Total,
    UsageRead,
    read_receipt,
)
from services.common.contracts import format_amount
from services.common.db import Database
from services.common.errors import BodyInvalid, NotFound
from services.common.times import parse_instant

MAX_PAGE = 1000

GroupBy = Literal["hour", "day", "month", "model"]
K = TypeVar("K", bound=Hashable)


class ReceiptNotFound(NotFound):
    """The account has no receipt for this event."""

    code = "receipt_not_found"
    detail = "There is no receipt for this event."


async def read_usage(
    session: AsyncSession,
    *,
    account: str,
    since: datetime | None,
    until: datetime | None,
    group_by: GroupBy,
    default_plan: str | None,
    now: datetime,
) -> UsageRead:
    """What an account used within a half-open window, by default this UTC month until now.

    Raises:
        BodyInvalid: the window ends before it begins.
    """
    since = (since or month_of(now)).astimezone(UTC)
    until = (until or now).astimezone(UTC)
    if since > until:
        raise BodyInvalid([{"loc": ["query", "from"], "msg": "Must not be after `to`."}])
    parts = await repository.list_parts(session, account=account, since=since, until=until)
    total = _add_up(parts, lambda part: None).get(None, Sums())
    currency = await find_currency(session, account=account, default_plan=default_plan, now=now)
    return UsageRead(
        account=account,
        since=since,
        until=until,
        total=Total(
            requests=total.requests,
            rows=total.rows,
            amount=format_amount(total.amount),
            currency=currency,
        ),
        buckets=_by_model(parts)
        if group_by == "model"
        else _by_time(parts, group_by, since=since, until=until),
    )


def _add_up(parts: list[Part], key: Callable[[Part], K]) -> dict[K, Sums]:
    sums: dict[K, Sums] = {}
    for part in parts:
        sums.setdefault(key(part), Sums()).add(
            requests=part.requests, rows=part.rows, amount=part.amount
        )
    return {each: counted for each, counted in sums.items() if counted.requests}


def _by_model(parts: list[Part]) -> list[ModelBucket]:
    return [
        ModelBucket(
            model=model,
            requests=sums.requests,
            rows=sums.rows,
            amount=format_amount(sums.amount),
        )
        for model, sums in sorted(_add_up(parts, lambda part: part.model).items())
    ]


def _by_time(
    parts: list[Part],
    group_by: Literal["hour", "day", "month"],
    *,
    since: datetime,
    until: datetime,
) -> list[TimeBucket]:
    start_of = {"hour": repository.hour_of, "day": day_of, "month": month_of}[group_by]
    length = {"hour": HOUR, "day": timedelta(days=1), "month": timedelta(days=31)}[group_by]
    return [
        TimeBucket(
            since=max(start, since),
            until=min(start_of(start + length), until),
            requests=sums.requests,
            rows=sums.rows,
            amount=format_amount(sums.amount),
        )
        for start, sums in sorted(_add_up(parts, lambda part: start_of(part.time)).items())
    ]


def day_of(moment: datetime) -> datetime:
    """The start of the UTC day an aware moment lies in."""
    return repository.hour_of(moment).replace(hour=0)


def month_of(moment: datetime) -> datetime:
    """The start of the UTC month an aware moment lies in."""
    return day_of(moment).replace(day=1)


async def find_currency(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> str | None:
    """The currency an account was charged in, else the one its plan would charge in."""
    charged = await find_currencies(session, accounts=[account])
    if account in charged:
        return charged[account]
    book = await read_price_book(session, accounts=[account], default_plan=default_plan)
    plan = book.plan_at(account, now)
    return plan.currency if plan else None


# -- receipts ------------------------------------------------------------------------------------


async def get_receipt(session: AsyncSession, *, account: str | None, event_id: str) -> ReceiptRead:
    """The receipt for an event, of one account or of whichever it is.

    Raises:
        ReceiptNotFound: no such event, or another account's.
    """
    receipt = None
    if event_id.isascii():  # MySQL fails to compare other text with an ASCII column
        receipt = await repository.find_receipt(session, account=account, event_id=event_id)
    if receipt is None:
        raise ReceiptNotFound()
    currencies = await find_currencies(session, accounts=[receipt.account])
    return read_receipt(receipt, currency=currencies[receipt.account])


async def read_receipts(
    session: AsyncSession,
    *,
    account: str,
    since: datetime | None = None,
    until: datetime | None = None,
    after: PageEnd | None = None,
    limit: int,
) -> ReceiptPage:
    """A page of receipts, newest first."""
    receipts = await repository.list_receipts(
        session, account=account, since=since, until=until, after=after, limit=limit + 1
    )
    currencies = await find_currencies(session, accounts=[account])
    page = receipts[:limit]
    return ReceiptPage(
        events=[read_receipt(receipt, currency=currencies[account]) for receipt in page],
        next_cursor=_cursor(page[-1]) if len(receipts) > limit else None,
    )


async def stream_csv(
    database: Database, *, account: str, since: datetime | None, until: datetime | None
) -> AsyncIterator[str]:
    """All receipts as CSV, newest first, a page at a time.

    Each page is a unit of work of its own, so that a slow reader holds no connection.
    """
    columns = list(ReceiptRead.model_fields)
    yield csv_lines([columns])
    after: PageEnd | None = None
    while True:
        async with database.snapshot() as session:
            page = await read_receipts(
                session, account=account, since=since, until=until, after=after, limit=MAX_PAGE
            )
        rows = [event.model_dump(mode="json") for event in page.events]
        yield csv_lines([[row[column] for column in columns] for row in rows])
        if page.next_cursor is None:
            return
        after = parse_cursor(page.next_cursor)


def _cursor(receipt: Receipt) -> str:
    text = f"{receipt.time.isoformat()} {receipt.id} {receipt.source}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def parse_cursor(cursor: str) -> PageEnd:
    """The end of a page that a cursor stands for.

    Raises:
        BodyInvalid: it is none of ours.
    """
    try:
        time, event_id, source = base64.urlsafe_b64decode(cursor).decode("ascii").split(" ")
        return PageEnd(parse_instant(time), event_id, source)
    except (binascii.Error, ValueError) as error:
        raise BodyInvalid([{"loc": ["query", "cursor"], "msg": "Invalid cursor."}]) from error
