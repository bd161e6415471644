"""A month of usage that can be closed, and calls that close it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.plans import LOCAL_PLAN
from harness.usage_events import ADA, Json, event
from services.billing.invoices import closing, service
from services.billing.invoices.issuing import Books
from services.billing.invoices.parties import Party, ProfileUpdate, TaxRule
from services.billing.invoices.schemas import BillingRunRead, InvoicePreview, InvoiceRead
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.money import credit, prepaid_plan, spent, store_prepaid, take

PERIOD = "2026-10"
DURING = datetime(2026, 10, 20, 12, tzinfo=UTC)
AFTER = datetime(2026, 11, 10, 12, tzinfo=UTC)
LOCAL_PLAN_ID, (LOCAL_PRICE_ID,) = plan_ids(PlanCreate.model_validate(LOCAL_PLAN))

SELLER = Party(
    name="Modelle GmbH",
    address="Am Markt 1\n10115 Berlin",
    country="DE",
    vat_id="DE136695976",
    email="billing@modelle.example",
)
BOOKS = Books(SELLER, (TaxRule(country="DE", rate="0.19"),))
UNTAXED = Books(SELLER, ())


async def use(
    database: Database, *rows: int, account: str = ADA, time: datetime = DURING, **members: Any
) -> list[Json]:
    """Deliver an event for each number of rows, all of one moment; return them."""
    now = members.pop("now", max(time, DURING))
    events = [event(account=account, rows=each, time=time, **members) for each in rows]
    await deliver(database, events, now=now)
    return events


async def use_prepaid(database: Database) -> None:
    """Give Ada 1 USD, and deliver an event that was paid from it, of 30 rows and 0.3 USD."""
    await store_prepaid(database, per_row=10**7)
    await credit(database, 10**9)
    plan_id, (price_id,) = plan_ids(prepaid_plan(10**7))
    paid = spent(30, time=DURING, price_id=price_id)
    await take(database, [paid], now=DURING, plan_id=plan_id)


async def deliver(database: Database, events: Sequence[Json], *, now: datetime) -> None:
    result = await take(database, events, now=now, plan_id=LOCAL_PLAN_ID)
    assert (result.accepted, result.rejected) == (len(events), [])


async def close(
    database: Database,
    period: str = PERIOD,
    *,
    now: datetime = AFTER,
    books: Books = UNTAXED,
    forced_reason: str | None = None,
) -> BillingRunRead:
    return await closing.run(
        database, period=period, forced_reason=forced_reason, books=books, now=now
    )


async def close_until(database: Database, count: int) -> None:
    """Close the month, killed once so many accounts have got their invoices."""

    def die(done: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await closing.run(
            database,
            period=PERIOD,
            forced_reason=None,
            books=UNTAXED,
            now=AFTER,
            on_progress=die,
        )


async def read_invoice(database: Database, invoice_id: str) -> InvoiceRead:
    async with database.snapshot() as session:
        return await service.get_invoice(session, account=None, invoice_id=invoice_id)


async def only_invoice(database: Database, **options: Any) -> InvoiceRead:
    """Close the month; return its only invoice."""
    (issued,) = (await close(database, **options)).invoices
    return await read_invoice(database, issued.id)


async def preview(
    database: Database,
    *,
    account: str = ADA,
    period: str | None = PERIOD,
    books: Books = UNTAXED,
    now: datetime = DURING,
) -> InvoicePreview:
    async with database.snapshot() as session:
        return await service.preview(
            session,
            account=account,
            period=period,
            books=books,
            default_plan=LOCAL_PLAN_ID,
            now=now,
        )


async def store_profile(database: Database, *, account: str = ADA, **members: Any) -> None:
    given = {
        "name": "Ada Lovelace Ltd",
        "address": "12 St James's Square\nLondon",
        "country": "DE",
        "email": "ada@example.com",
    }
    profile = ProfileUpdate.model_validate(given | members)
    await in_transaction(
        database,
        lambda session: service.put_profile(session, account=account, profile=profile, now=DURING),
    )
