"""The search box of administrators, which leads straight to what a text names."""

import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from httpx import AsyncClient

from services.common.db.database import Database
from services.console.usage.figures import offered_months
from tests.integration.billing.months import use
from tests.integration.console.conftest import AUTH, PASSWORD, World
from tests.integration.console.hostile_models import MODEL
from tests.integration.console.visits import (
    FOREIGN,
    new_email,
    path_of,
    submit,
    text_of,
    visit,
)


@pytest.fixture
async def email(world: World) -> str:
    """The address of a registered buyer."""
    address = new_email()
    async with world.browser() as other:
        await other.post(f"{AUTH}/register", json={"email": address, "password": PASSWORD})
    return address


async def search(administrator: AsyncClient, text: str) -> str:
    """Return the address of the page that a text leads to."""
    page = await administrator.get("/admin/search", params={"q": text})
    return path_of(page) if page.status_code == 200 else page.headers["Location"]


@pytest.mark.costly
async def test_an_account_id_leads_to_the_account(administrator: AsyncClient, buyer: str) -> None:
    unknown = str(uuid4())

    assert await search(administrator, f" {buyer.upper()} ") == f"/admin/accounts/{buyer}"
    assert await search(administrator, unknown) == f"/admin/accounts/{unknown}"


async def test_an_event_id_leads_to_the_event(
    administrator: AsyncClient, database: Database, buyer: str
) -> None:
    now = datetime.now(UTC)
    (event,) = await use(database, 1, account=buyer, time=now, now=now)

    found = await search(administrator, event["id"])

    assert found == f"/admin/events/{event['id']}?account={buyer}"


@pytest.mark.costly
async def test_an_invoices_number_leads_to_the_invoice(
    administrator: AsyncClient, database: Database, buyer: str
) -> None:
    month = offered_months(today=datetime.now(UTC).date())[10]
    time = datetime.combine(month.first, datetime.min.time(), UTC)
    await use(database, 1, account=buyer, time=time, now=time)
    shown = await visit(administrator, f"/admin/invoices?period={month.id}")
    await submit(administrator, shown, "/admin/invoices/close")
    of_buyer = await visit(administrator, f"/admin/invoices?account={buyer}")
    found = re.search(r'href="(/admin/invoices/[^"]+)">(INV-[0-9]+)<', of_buyer.text)
    assert found is not None

    assert await search(administrator, found[2].lower()) == found[1]


@pytest.mark.costly
async def test_an_e_mail_or_a_part_of_it_leads_to_its_account(
    administrator: AsyncClient, email: str
) -> None:
    found = [await search(administrator, text) for text in (email, email[:16].upper())]

    assert found[0] == found[1]
    assert found[0].startswith("/admin/accounts/")


async def test_a_models_name_leads_to_the_model(administrator: AsyncClient) -> None:
    assert await search(administrator, MODEL) == f"/admin/models/{MODEL}"
    assert await search(administrator, MODEL[:4].upper()) == f"/admin/models/{MODEL}"


async def test_a_text_that_means_several_shows_them(administrator: AsyncClient, email: str) -> None:
    page = await visit(administrator, "/admin/search?q=example.com")

    assert page.text.count("<td>Account</td>") > 1
    assert not FOREIGN.search(page.text)


@pytest.mark.parametrize("text", ["", "nobody-has-this", "INV-999999", "'\"><script>nobody", "%00"])
async def test_what_is_not_found_is_said(administrator: AsyncClient, text: str) -> None:
    page = await administrator.get("/admin/search", params={"q": text})

    assert page.status_code == 200
    assert ("Nothing found" in text_of(page)) == bool(text)
    assert not FOREIGN.search(page.text)


@pytest.mark.parametrize(("name", "other"), [("auth", "models"), ("inference", "accounts")])
async def test_while_an_api_is_away_the_rest_is_searched(
    world: World, administrator: AsyncClient, email: str, name: str, other: str
) -> None:
    world.away.add(name)

    page = await visit(administrator, f"/admin/search?q={MODEL if name == 'auth' else email}")

    assert f"/admin/{other}" in (path_of(page) + page.text)
    if name == "inference":
        assert "Not everything was searched" in text_of(page)
