"""Administrators find accounts, and change their plan, their money and their access."""

import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from httpx import AsyncClient

from services.common.db.database import Database
from services.console.sessions.visitors import Session
from tests.integration.billing.months import use
from tests.integration.console.conftest import AUTH, PASSWORD, World
from tests.integration.console.test_sign_in import session_of
from tests.integration.console.visits import (
    Shown,
    follow,
    new_email,
    path_of,
    submit,
    text_of,
    visit,
)

CREDIT = {"amount": "25", "currency": "USD", "reason": "Welcome"}


@pytest.fixture
def session(world: World, administrator: AsyncClient) -> Session:
    return session_of(world, administrator)


class TestSearch:
    async def test_a_part_of_an_email_finds_its_account(
        self, administrator: AsyncClient, world: World
    ) -> None:
        email = new_email()
        async with world.browser() as other:
            await other.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})

        found = await visit(administrator, f"/admin/accounts?q={email[:16].upper()}")
        nobody = await visit(administrator, "/admin/accounts?q=nobody-has-this")

        assert email in text_of(found)
        assert "Nobody found" in nobody.text

    @pytest.mark.costly
    async def test_an_account_id_leads_to_its_page(self, administrator: AsyncClient) -> None:
        account = str(uuid4())

        page = await visit(administrator, f"/admin/accounts?q={account.upper()}")

        assert path_of(page) == f"/admin/accounts/{account}"
        assert "Organisation or unknown to auth" in text_of(page)

    @pytest.mark.costly
    async def test_the_pages_of_the_list_name_everyone_once(
        self, administrator: AsyncClient, world: World
    ) -> None:
        async with world.browser() as other:
            for _ in range(26):
                body = {"email": new_email(), "password": PASSWORD}
                await other.post(f"{AUTH}/register", json=body)
        seen, path = list[str](), "/admin/accounts"
        for _ in range(20):
            page = await visit(administrator, path)
            seen += re.findall(r'/admin/accounts/([0-9a-f-]{36})"', page.text)
            following = [link for link in Shown(page).links if "cursor=" in link]
            if not following:
                break
            path = following[0]

        assert len(seen) == len(set(seen)) > 26

    async def test_each_account_is_listed_with_its_revenue_by_day(
        self, administrator: AsyncClient, session: Session, database: Database
    ) -> None:
        before = await visit(administrator, f"/admin/accounts?q={session.email}")
        await use(database, 1, 2, account=session.user_id, time=datetime.now(UTC))

        page = await visit(administrator, f"/admin/accounts?q={session.email}")

        assert "No calls" in text_of(before)
        assert "$0.0013" in text_of(page)
        assert page.text.count('class="sparkline"') == 1

    async def test_accounts_are_listed_while_billing_is_away(
        self, world: World, administrator: AsyncClient, session: Session
    ) -> None:
        world.away.add("billing")

        page = await visit(administrator, f"/admin/accounts?q={session.email}")

        assert session.email in text_of(page)
        assert "Billing is unavailable" in text_of(page)

    @pytest.mark.parametrize("account", ["x", "0198A000-0000-7000-8000-00000000000A", "%3Cb%3E"])
    async def test_what_is_no_account_id_is_not_found(
        self, administrator: AsyncClient, account: str
    ) -> None:
        assert (await visit(administrator, f"/admin/accounts/{account}")).status_code == 404


@pytest.mark.costly
class TestNotes:
    async def test_a_note_is_saved_once_shown_as_text_and_deleted(
        self, administrator: AsyncClient, buyer: str, session: Session
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        for _ in range(2):
            sent = await submit(administrator, shown, f"{at}/notes", text="Call <b>Ada</b>\nin May")
        page = await follow(administrator, sent)
        (delete,) = [each.action for each in Shown(page).forms if each.action.endswith("/delete")]
        deleted = await follow(administrator, await submit(administrator, page, delete))

        assert page.text.count("Call &lt;b&gt;Ada&lt;/b&gt;\nin May") == 1
        assert session.email in text_of(page)
        assert "The note is deleted." in text_of(deleted)
        assert "Call" not in text_of(deleted)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [(" ", "Write something first."), ("bell\a", "Must be 1 to 2000 characters")],
    )
    async def test_what_is_wrong_with_a_note_is_beside_its_field(
        self, administrator: AsyncClient, buyer: str, text: str, problem: str
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        answer = await submit(administrator, shown, f"{at}/notes", text=text)

        assert answer.status_code == 422
        assert problem in text_of(answer)
        assert 'aria-describedby="f-text-error"' in answer.text

    async def test_an_account_that_auth_does_not_know_cannot_have_notes(
        self, administrator: AsyncClient
    ) -> None:
        at = f"/admin/accounts/{uuid4()}"
        shown = await visit(administrator, at)

        answer = await submit(administrator, shown, f"{at}/notes", text="Who is this?")

        assert answer.status_code == 404
        assert "Neither a user nor an organisation has this id." in text_of(answer)
        assert "Who is this?" in text_of(answer)


@pytest.mark.costly
class TestCredit:
    async def test_a_form_that_is_sent_twice_adds_the_credit_once(
        self, administrator: AsyncClient, buyer: str
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        first = await submit(administrator, shown, f"{at}/credit", **CREDIT)
        second = await submit(administrator, shown, f"{at}/credit", **CREDIT)
        page = await follow(administrator, second)

        assert (first.status_code, second.status_code) == (303, 303)
        assert "$25.00 added. The balance is now $25.00." in text_of(page)
        assert 'data-testid="balance">$25.00<' in page.text

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"amount": ""}, "Enter an amount"),
            ({"amount": "-1"}, "above 0"),
            ({"amount": "NaN"}, "Enter an amount"),
            ({"amount": "much"}, "Enter an amount"),
            ({"amount": "0.0000000001"}, ""),
            ({"reason": ""}, "Say why"),
            ({"reason": "x" * 256}, "at most 255"),
            ({"currency": "QQQ"}, ""),
        ],
    )
    async def test_what_is_wrong_is_beside_its_field_and_nothing_is_added(
        self, administrator: AsyncClient, buyer: str, changes: dict[str, str], problem: str
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        answer = await submit(administrator, shown, f"{at}/credit", **CREDIT | changes)

        assert answer.status_code == 422, text_of(answer)
        kept = Shown(answer).form(f"{at}/credit").fields
        assert answer.status_code == 422
        assert answer.text.count('aria-invalid="true"') == 1
        assert problem in text_of(answer)
        assert kept["reason"] == (CREDIT | changes)["reason"]
        assert 'data-testid="balance">$0.00<' in answer.text

    async def test_a_form_whose_answer_was_lost_can_be_sent_again(
        self, world: World, administrator: AsyncClient, buyer: str, losing_answers: None
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        lost = await submit(administrator, shown, f"{at}/credit", **CREDIT)
        again = await submit(administrator, lost, f"{at}/credit")

        assert lost.status_code == 503
        assert "it is done only once" in text_of(lost)
        sent = [Shown(each).form(f"{at}/credit").fields["once"] for each in (shown, lost, again)]
        assert len(set(sent)) == 1
        assert 'data-testid="balance">$25.00<' in again.text


class TestPlan:
    async def test_an_account_is_put_on_a_plan(
        self, administrator: AsyncClient, buyer: str, database: Database, plan_name: str
    ) -> None:
        plans = await visit(administrator, "/admin/plans")
        fields = {"name": plan_name, "per_request": "2", "per_row": "0"}
        listed = await follow(
            administrator, await submit(administrator, plans, "/admin/plans", **fields)
        )
        plan = re.findall(r"preview\?plan=([0-9a-f-]+)", listed.text)[-1]
        shown = await visit(administrator, f"/admin/accounts/{buyer}")

        sent = await submit(administrator, shown, f"/admin/accounts/{buyer}/plan", plan=plan)
        await use(database, 1, account=buyer, time=datetime.now(UTC))
        page = await follow(administrator, sent)

        assert "The plan is set." in text_of(page)
        assert 'data-testid="usage-amount">$2.00<' in page.text
        assert f"has the prices of {plan_name}" in text_of(page)
        assert f"{plan_name} , since" in text_of(page)

    @pytest.mark.costly
    @pytest.mark.parametrize(
        "fields", [{"plan": ""}, {"plan": "x", "effective_from": "2001-01-01"}]
    )
    async def test_a_plan_that_cannot_be_set_changes_nothing(
        self, administrator: AsyncClient, buyer: str, fields: dict[str, str]
    ) -> None:
        shown = await visit(administrator, f"/admin/accounts/{buyer}")

        answer = await submit(administrator, shown, f"/admin/accounts/{buyer}/plan", **fields)

        assert answer.status_code in (404, 422)
        assert 'aria-invalid="true"' in answer.text or 'class="alert danger"' in answer.text


@pytest.mark.costly
class TestAccess:
    async def test_a_user_is_disabled_and_enabled_again(
        self, administrator: AsyncClient, buyer: str
    ) -> None:
        at = f"/admin/accounts/{buyer}"
        shown = await visit(administrator, at)

        disabled = await follow(administrator, await submit(administrator, shown, f"{at}/access"))
        enabled = await follow(administrator, await submit(administrator, disabled, f"{at}/access"))

        assert "The user is disabled" in text_of(disabled)
        assert "The user is enabled" in text_of(enabled)

    async def test_the_last_administrator_is_told_why_they_cannot_be_disabled(
        self, administrator: AsyncClient, session: Session
    ) -> None:
        at = f"/admin/accounts/{session.user_id}"
        shown = await visit(administrator, at)

        answer = await submit(administrator, shown, f"{at}/access")

        assert answer.status_code == 409
        assert "administrator" in text_of(answer)
