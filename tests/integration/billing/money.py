"""A prepaid plan at 10⁻⁹ a row, and calls that move its money, at any time and without HTTP."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from harness.plans import plan, price
from harness.usage_events import ADA, JOURNAL, Json, event
from services.billing.events.service import ingest
from services.billing.ledger.credits import BalanceRead, CreditCreate, add_credit, read_balance
from services.billing.ledger.leases import request_leases
from services.billing.models import UsageEvent
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.billing.sources.service import record_report
from services.common.contracts import (
    IngestResult,
    LeaseRequest,
    LeaseTerms,
    SourceReport,
    format_amount,
    parse_amount,
)
from services.common.db.database import Database
from services.common.db.retrying import in_transaction


def prepaid_plan(per_row: int = 1) -> PlanCreate:
    """Return a prepaid plan that costs this many 10⁻⁹ a row."""
    flat = price((None, "0", format_amount(per_row)))
    return PlanCreate.model_validate(plan(flat, name="Prepaid", billing="prepaid"))


PLAN_ID, (PRICE_ID,) = plan_ids(prepaid_plan())
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def new_id() -> str:
    return str(uuid.uuid4())


async def store_prepaid(database: Database, *, per_row: int = 1) -> None:
    stored = prepaid_plan(per_row)
    await in_transaction(
        database, lambda session: store_plan(session, plan=stored, now=datetime.now(UTC))
    )


async def credit(database: Database, amount: int, *, account: str = ADA) -> None:
    body = CreditCreate.model_validate(
        {"amount": format_amount(amount), "currency": "USD", "reason": "A test."}
    )
    await in_transaction(
        database,
        lambda session: add_credit(session, account=account, credit=body, by="a test", now=NOON),
    )


def request(
    sequence: int, *, account: str = ADA, journal: str = JOURNAL, **members: Any
) -> LeaseRequest:
    """Return a lease request; amounts are integers of 10⁻⁹."""
    amounts = {
        name: format_amount(members.pop(name))
        for name in ("spent", "desired", "minimum")
        if name in members
    }
    return LeaseRequest.model_validate(
        {"account": account, "journal": journal, "sequence": sequence} | amounts | members
    )


async def lease(
    database: Database, *requests: LeaseRequest, now: datetime = NOON, plan_id: str = PLAN_ID
) -> list[LeaseTerms]:
    return await request_leases(database, requests=requests, default_plan=plan_id, now=now)


async def granted(
    database: Database, one: LeaseRequest, *, now: datetime = NOON
) -> tuple[str, int]:
    """Return the status and the grant of one lease request."""
    (terms,) = await lease(database, one, now=now)
    return terms.status, parse_amount(terms.granted)


def spent(rows: int, sequence: int | None = None, **members: Any) -> Json:
    """Return the event of a request that cost as many 10⁻⁹ as it has rows."""
    given: Json = {"time": NOON, "price_id": PRICE_ID, "sequence": sequence} | members
    return event(rows=rows, **given)


async def take(
    database: Database,
    events: Sequence[Json],
    *,
    now: datetime = NOON,
    plan_id: str = PLAN_ID,
) -> IngestResult:
    return await ingest(database, items=events, default_plan=plan_id, now=now)


async def send_report(
    database: Database,
    last: int,
    *,
    closed: bool = False,
    journal: str = JOURNAL,
    now: datetime = NOON,
) -> None:
    report = SourceReport(last=last, closed=closed)
    await in_transaction(
        database, lambda session: record_report(session, journal_id=journal, report=report, now=now)
    )


async def money(database: Database, *, account: str = ADA) -> tuple[int, int]:
    """Return what an account has available, and what is held of it."""
    async with database.snapshot() as session:
        read: BalanceRead = await read_balance(
            session, account=account, default_plan=None, now=NOON
        )
    assert parse_amount(read.balance) == parse_amount(read.available) + parse_amount(read.held)
    return parse_amount(read.available), parse_amount(read.held)


async def charged(database: Database, *, account: str = ADA) -> int:
    async with database.snapshot() as session:
        receipts = await session.scalars(select(UsageEvent).where(UsageEvent.account == account))
        return sum(receipt.amount for receipt in receipts)
