"""A preview has what the invoice will have, if nothing more happens."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete

from harness.usage_events import BOB, Json, event
from services.billing.invoices.schemas import InvoicePreview, InvoiceRead
from services.billing.models import UsageVersion
from services.common.db.database import Database
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    DURING,
    close,
    deliver,
    only_invoice,
    preview,
    read_invoice,
    store_profile,
    use,
)
from tests.integration.billing.statements import accesses, recorded


def as_body(shown: InvoicePreview | InvoiceRead) -> Json:
    """Return what an invoice and its preview have in common."""
    return shown.model_dump(exclude={"id", "number", "issued_at"})


async def test_a_preview_equals_the_invoice_that_follows(database: Database) -> None:
    await store_profile(database)
    await use(database, 123_456, 7)
    await use(database, 31, model="iris")

    before = await preview(database, books=BOOKS)
    invoice = await only_invoice(database, books=BOOKS)

    assert as_body(before) == as_body(invoice)


async def test_a_preview_has_what_the_invoice_has_of_late_events_and_versions(
    database: Database,
) -> None:
    await close(database, "2026-09", now=DURING)
    early = datetime(2026, 9, 30, 23, 30, tzinfo=UTC)
    events = [
        event(time=time, rows=rows, model=model, version=version)
        for time in (early, DURING, DURING + timedelta(hours=1), DURING + timedelta(hours=8))
        for rows, (model, version) in enumerate(
            [("wine", "v1"), ("wine", "v2"), ("iris", "v2")], start=40_001
        )
    ]
    events[0]["data"]["version"] = "v0"
    await deliver(database, events, now=DURING + timedelta(hours=8))
    await use(database, 5, account=BOB, version="v9")
    await use(database, 6, time=AFTER, version="v8")

    before = await preview(database, books=BOOKS)
    invoice = await read_invoice(database, (await close(database, books=BOOKS)).invoices[0].id)

    assert as_body(before) == as_body(invoice)
    assert [(line.model, line.versions, line.requests) for line in before.lines] == [
        ("iris", ["v2"], 4),
        ("wine", ["v0", "v1", "v2"], 8),
    ]


async def test_a_preview_reads_late_events_alone_one_by_one(database: Database) -> None:
    await close(database, "2026-09", now=DURING)
    early = datetime(2026, 9, 30, 23, 30, tzinfo=UTC)
    await use(database, *range(500), now=DURING)
    await use(database, 1, 2, time=early, now=DURING)

    with recorded(database) as statements:
        before = await preview(database)

    assert [line.requests for line in before.lines] == [502]
    assert len(statements) == 1
    read = [each for each in await accesses(database, statements) if each.key is not None]
    assert [each.kind for each in read if each.table == "usage_events"] in ([], ["eq_ref"])


async def test_a_preview_names_the_versions_that_the_version_before_counted(
    database: Database,
) -> None:
    await use(database, 70_000, version="v1")
    await use(database, 80_000, version="v2")
    await use(database, 90_000, model="iris", version="v3")
    async with database.transaction() as session:
        await session.execute(delete(UsageVersion))
    await use(database, 60_000, version="v3")

    before = await preview(database)
    invoice = await only_invoice(database)

    assert as_body(before) == as_body(invoice)
    assert [line.versions for line in before.lines] == [["v3"], ["v1", "v2", "v3"]]
