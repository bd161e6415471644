"""No charge is given back twice, and none is lost, whatever the doors and their order.

Usage is given back by recalls, by adjustments and by credit notes, before and after its month has
an invoice.
"""

from datetime import datetime

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import select

from harness.issuer import Headers
from harness.usage_events import ADA, Json
from services.billing.corrections import recalls
from services.billing.corrections.recalls import RecallCreate
from services.billing.invoices.issuing import Books
from services.billing.invoices.models import AccountCredit
from services.billing.invoices.schemas import InvoiceRead
from services.billing.plans.service import plan_ids
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.money import (
    credit,
    money,
    new_id,
    prepaid_plan,
    spent,
    store_prepaid,
    take,
)
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    DURING,
    LOCAL_PLAN_ID,
    UNTAXED,
    only_invoice,
    store_profile,
    use,
)

VERSION = "20261122t000000z-0a1b2c3d"
NOVEMBER = datetime.fromisoformat("2026-11-20T12:00:00Z")
DECEMBER = datetime.fromisoformat("2026-12-10T12:00:00Z")
BALANCE = 10**11
PER_ROW = 10**8
TENTHS_OF_A_CENT = 10**6


async def recall(database: Database, *, model: str = "wine", now: datetime = AFTER) -> None:
    body = RecallCreate(model=model, version=VERSION, reason="Wrong labels.")
    await in_transaction(
        database, lambda session: recalls.create(session, recall=body, by="a test", now=now)
    )
    await recalls.apply(database, now=now)


class Doors:
    """The calls of an administrator, each with a key of its own."""

    def __init__(self, client: AsyncClient, admin: Headers) -> None:
        self._client, self._admin, self._calls = client, admin, 0

    async def note(self, invoice: InvoiceRead, **body: object) -> Response:
        return await self._post(f"/invoices/{invoice.id}/credit-notes", body)

    async def adjust(self, *events: Json) -> Response:
        return await self._post("/adjustments", {"events": [each["id"] for each in events]})

    async def notes_of(self, invoice: InvoiceRead) -> list[Json]:
        path = f"/invoices/{invoice.id}/credit-notes"
        listed = (await self._client.get(path, headers=self._admin)).json()
        found: list[Json] = listed["credit_notes"]
        return found

    async def _post(self, path: str, body: dict[str, object]) -> Response:
        self._calls += 1
        headers = {**self._admin, "Idempotency-Key": str(self._calls)}
        return await self._client.post(path, headers=headers, json={"reason": "An error.", **body})


@pytest.fixture
def doors(client: AsyncClient, admin: Headers) -> Doors:
    return Doors(client, admin)


async def use_prepaid(database: Database, rows: int = 30) -> Json:
    """Use some rows, 0.1 each, of a balance of 100; return the event."""
    await store_prepaid(database, per_row=PER_ROW)
    await credit(database, BALANCE)
    _, (price_id,) = plan_ids(prepaid_plan(PER_ROW))
    used = spent(rows, time=DURING, price_id=price_id)
    await take(database, [used], now=DURING, plan_id=LOCAL_PLAN_ID)
    return used


async def next_invoice(
    database: Database, books: Books = UNTAXED, rows: int = 300_000
) -> InvoiceRead:
    """Use more of another model in November; return its invoice."""
    await use(database, rows, time=NOVEMBER, model="iris")
    return await only_invoice(database, period="2026-11", now=DECEMBER, books=books)


async def credits_of(database: Database) -> list[tuple[int, bool]]:
    """Return the amount of each of Ada's credits, and whether an invoice has used it."""
    async with database.snapshot() as session:
        found = await session.scalars(
            select(AccountCredit).where(AccountCredit.account == ADA).order_by(AccountCredit.id)
        )
        return [(each.amount, each.invoice_id is not None) for each in found]


class TestTwoDoors:
    @pytest.mark.costly
    async def test_a_recall_leaves_nothing_for_a_credit_note(
        self, database: Database, doors: Doors
    ) -> None:
        await use(database, 100_000)
        invoice = await only_invoice(database)
        await recall(database)

        refused = await doors.note(invoice)
        following = await next_invoice(database)

        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "The invoice has 0 USD left to give back.",
        )
        assert (following.subtotal, following.total) == ("30", "20")
        assert await verify(database) == []

    @pytest.mark.costly
    async def test_a_credit_note_leaves_nothing_for_a_recall(
        self, database: Database, doors: Doors
    ) -> None:
        await use(database, 100_000)
        invoice = await only_invoice(database)
        await doors.note(invoice)

        await recall(database)
        following = await next_invoice(database)

        assert (following.credits, following.total) == ([], "30")
        assert await verify(database) == []

    @pytest.mark.costly
    async def test_a_credit_note_of_a_part_leaves_the_rest_for_a_recall(
        self, database: Database, doors: Doors
    ) -> None:
        await use(database, 100_000)
        invoice = await only_invoice(database)
        await doors.note(invoice, lines=[{"line": 0, "amount": "4"}])

        await recall(database)
        following = await next_invoice(database)

        assert [each.amount for each in following.credits] == ["6"]
        assert await verify(database) == []

    async def test_an_adjustment_counts_for_its_line(
        self, database: Database, doors: Doors
    ) -> None:
        await use(database, 100_000, model="iris")
        events = await use(database, 100_000)
        invoice = await only_invoice(database)
        await doors.adjust(*events)

        again = await doors.note(invoice, lines=[1])
        other = await doors.note(invoice, lines=[0])

        assert (again.status_code, other.status_code) == (409, 201)
        first, second = await doors.notes_of(invoice)
        assert first["lines"] == [{"line": 1, "amount": "10"}]
        assert second["lines"] == [{"line": 0, "amount": "10"}]
        assert await verify(database) == []

    @pytest.mark.parametrize("door", ["recall", "adjustment"])
    @pytest.mark.parametrize("is_invoiced", [False, True])
    @pytest.mark.any_database
    async def test_prepaid_usage_taken_back_is_not_refunded_again(
        self, database: Database, doors: Doors, door: str, is_invoiced: bool
    ) -> None:
        used = await use_prepaid(database)
        if is_invoiced:
            invoice = await only_invoice(database)
        await (recall(database, now=DURING) if door == "recall" else doors.adjust(used))
        if not is_invoiced:
            invoice = await only_invoice(database)

        refused = await doors.note(invoice)

        assert refused.status_code == 409
        assert await money(database) == (BALANCE, 0)
        assert await verify(database) == []

    async def test_prepaid_usage_refunded_by_a_credit_note_is_not_taken_back_again(
        self, database: Database, doors: Doors
    ) -> None:
        used = await use_prepaid(database)
        invoice = await only_invoice(database)
        await doors.note(invoice)

        adjusted = await doors.adjust(used)

        assert adjusted.status_code == 201
        assert await money(database) == (BALANCE, 0)
        assert await verify(database) == []


@pytest.mark.costly
async def test_what_cannot_go_to_its_invoice_reduces_the_next_one(
    database: Database, doors: Doors
) -> None:
    await use(database, 100_000)
    await only_invoice(database)
    await recall(database)
    events = await use(database, 100_000, time=NOVEMBER, model="iris")
    november = await only_invoice(database, period="2026-11", now=DECEMBER)

    adjusted = await doors.adjust(*events)

    assert november.total == "0"
    assert adjusted.status_code == 201
    assert await doors.notes_of(november) == []
    assert sorted(await credits_of(database)) == [(10**10, False), (10**10, True)]
    assert await verify(database) == []


@pytest.mark.any_database
class TestTax:
    @pytest.mark.parametrize("is_invoiced", [False, True])
    async def test_prepaid_usage_taken_back_costs_no_tax(
        self, database: Database, is_invoiced: bool
    ) -> None:
        await store_profile(database)
        await use_prepaid(database)
        if is_invoiced:
            await only_invoice(database, books=BOOKS)
        await recall(database, now=DURING)
        if not is_invoiced:
            invoice = await only_invoice(database, books=BOOKS)
            assert [(each.id, each.amount) for each in invoice.credits] == [
                ("prepaid", "3"),
                ("returned", "0.57"),
            ]
            assert (invoice.tax.amount, invoice.total) == ("0.57", "0")
        else:
            assert await credits_of(database) == [(570_000_000, False)]

        assert await money(database) == (BALANCE, 0)
        assert await verify(database) == []

    async def test_usage_that_was_not_taxed_is_given_back_without_tax(
        self, database: Database
    ) -> None:
        await use(database, 100_000)
        await only_invoice(database, books=BOOKS)
        await recall(database)
        await store_profile(database)

        following = await next_invoice(database, books=BOOKS)

        assert following.tax.amount == "5.7"
        assert [each.amount for each in following.credits] == ["10"]
        assert await verify(database) == []

    async def test_usage_that_was_taxed_is_given_back_with_its_tax(
        self, database: Database
    ) -> None:
        await store_profile(database)
        await use(database, 100_000)
        await only_invoice(database, books=BOOKS)
        await recall(database)

        following = await next_invoice(database, books=UNTAXED)

        assert following.tax.amount == "0"
        assert [each.amount for each in following.credits] == ["11.9"]
        assert await verify(database) == []

    async def test_all_lines_are_given_back_though_tax_is_rounded_once(
        self, database: Database, doors: Doors
    ) -> None:
        await store_profile(database)
        for model in ("a", "b", "c"):
            await use(database, 300, model=model)
        invoice = await only_invoice(database, books=BOOKS)

        note = await doors.note(invoice, lines=[0, 1, 2])

        assert (note.status_code, note.json()["amount"]) == (201, invoice.total)
        assert await verify(database) == []


@pytest.mark.any_database
class TestLessThanAMinorUnit:
    async def test_it_is_given_back_where_it_was_charged(
        self, database: Database, doors: Doors
    ) -> None:
        """0.0006 of 10.0051 is a cent, since 10.0045 would have been rounded down."""
        small, _ = await use(database, 1, 100_040)
        await doors.adjust(small)

        invoice = await only_invoice(database)

        assert (invoice.subtotal, invoice.total) == ("10.01", "10")
        assert await verify(database) == []

    async def test_it_counts_with_what_is_taken_back_later(
        self, database: Database, doors: Doors
    ) -> None:
        """0.0006 and 0.0055 of 10.0102 are a cent, though neither is one alone."""
        first, second, _ = await use(database, 1, 50, 100_041)
        await doors.adjust(first)
        invoice = await only_invoice(database)

        await doors.adjust(second)

        assert (invoice.subtotal, invoice.credits) == ("10.01", [])
        assert [each["amount"] for each in await doors.notes_of(invoice)] == ["0.01"]
        assert await verify(database) == []

    async def test_credits_of_the_version_before_wait_until_they_are_a_minor_unit(
        self, database: Database
    ) -> None:
        await store_credits(database, 3 * TENTHS_OF_A_CENT, 3 * TENTHS_OF_A_CENT)
        await use(database, 100_000)
        october = await only_invoice(database)
        await store_credits(database, 3 * TENTHS_OF_A_CENT)

        november = await next_invoice(database)

        assert [each.amount for each in october.credits] == ["0.01"]
        assert november.credits == []
        assert [used for _, used in await credits_of(database)].count(False) == 1


async def store_credits(database: Database, *amounts: int) -> None:
    """Store credits as the version before did: exact, and without their month."""
    async with database.transaction() as session:
        for amount in amounts:
            session.add(
                AccountCredit(
                    id=new_id(),
                    account=ADA,
                    currency="USD",
                    cause="a recall",
                    model="wine",
                    price_id="a price",
                    reason="A recall.",
                    amount_high=0,
                    amount_low=amount,
                    includes_tax=False,
                    period=None,
                    created_at=DURING,
                    invoice_id=None,
                )
            )
