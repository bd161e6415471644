"""Administrators publish plans, close months, give back and follow events to their invoices."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from services.common.db.database import Database
from services.console.usage.figures import Month, offered_months
from tests.integration.billing.money import send_report
from tests.integration.billing.months import use
from tests.integration.console.conftest import World
from tests.integration.console.visits import Shown, follow, submit, text_of, visit

MONTHS = offered_months(today=datetime.now(UTC).date())
PLAN = {"per_request": "0.01", "per_row": "0"}
VERSION = "20261122t000000z-0a1b2c3d"


def within(month: Month) -> datetime:
    return datetime.combine(month.first, datetime.min.time(), UTC) + timedelta(days=9)


@pytest.fixture
def pieces(world: World) -> list[str]:
    """The pieces of a comparison, which billing answers only after the first has been sent."""
    sent, began = list[str](), asyncio.Event()
    console, billing = world.console, world.services["billing"]

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            await send(message)
            if scope["path"] == "/admin/plans/preview" and message.get("body"):
                sent.append(message["body"].decode())
                began.set()

        await console(scope, receive, note)

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plans/preview":
            async with asyncio.timeout(10):
                await began.wait()
        await billing(scope, receive, send)

    world.console, world.services["billing"] = recording, waiting  # type: ignore[assignment]
    return sent


class TestPlans:
    async def test_a_plan_is_published_once_and_compared_with_a_month(
        self, administrator: AsyncClient, database: Database, buyer: str, plan_name: str
    ) -> None:
        now = datetime.now(UTC)
        await use(database, *[1] * 10, account=buyer, time=now, now=now)
        shown = await visit(administrator, "/admin/plans")

        for _ in range(2):
            sent = await submit(administrator, shown, "/admin/plans", name=plan_name, **PLAN)
        listed = await follow(administrator, sent)
        plan = re.findall(r"preview\?plan=([0-9a-f-]+)", listed.text)[-1]
        preview = await visit(administrator, f"/admin/plans/preview?plan={plan}&account={buyer}")

        assert listed.text.count(f"<h2>{plan_name}</h2>") == 1
        assert 'data-testid="preview-before">$0.0060<' in preview.text
        assert 'data-testid="preview-after">$0.10<' in preview.text
        assert 'data-testid="preview-losers">1<' in preview.text
        assert "<svg" in preview.text

    async def test_a_plan_may_have_trial_credit(
        self, administrator: AsyncClient, plan_name: str
    ) -> None:
        shown = await visit(administrator, "/admin/plans")
        trial = {"billing": "prepaid", "trial_amount": "5", "trial_days": "14"}

        sent = await submit(administrator, shown, "/admin/plans", name=plan_name, **PLAN, **trial)
        listed = await follow(administrator, sent)

        card = listed.text.partition(f"<h2>{plan_name}</h2>")[2].partition("</article>")[0]
        assert "<dt>Trial credit</dt><dd>$5.00 for 14 days</dd>" in card

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": ""},
            {"currency": "QQQ"},
            {"per_row": "-1"},
            {"up_to_requests": "5", "then_per_request": "x", "then_per_row": "0"},
            {"model_2": "a b", "per_request_2": "1", "per_row_2": "1"},
            {"per_second": "0", "burst": "1"},
            {"billing": "prepaid", "trial_amount": "0", "trial_days": "14"},
            {"billing": "prepaid", "trial_amount": "5", "trial_days": "367"},
            {"billing": "postpaid", "monthly_fee": "-1"},
            {"description": "x" * 501},
        ],
    )
    async def test_what_is_wrong_is_beside_its_field_and_nothing_is_published(
        self, administrator: AsyncClient, plan_name: str, changes: dict[str, str]
    ) -> None:
        shown = await visit(administrator, "/admin/plans")
        fields = {"name": plan_name} | PLAN | changes

        answer = await submit(administrator, shown, "/admin/plans", **fields)
        after = await visit(administrator, "/admin/plans")

        kept = Shown(answer).form("/admin/plans").fields
        assert answer.status_code == 422
        assert answer.text.count('aria-invalid="true"') == 1
        assert kept["per_request"] == PLAN["per_request"]
        assert plan_name not in after.text

    async def test_a_comparison_that_takes_long_is_shown_below_its_form_once_it_is_there(
        self, pieces: list[str], administrator: AsyncClient
    ) -> None:
        shown = await visit(administrator, "/admin/plans")
        plan = re.findall(r"preview\?plan=([0-9a-f-]+)", shown.text)[-1]

        answer = await visit(administrator, f"/admin/plans/preview?plan={plan}")

        first, last = pieces
        assert answer.text == first + last
        assert 'action="/admin/plans/preview"' in first
        assert first.rstrip().endswith("millions of calls.</p></div>")
        assert 'data-testid="preview-before"' in last
        assert last.rstrip().endswith("</html>")

    async def test_a_comparison_of_what_does_not_exist_is_explained(
        self, administrator: AsyncClient
    ) -> None:
        unknown = await visit(administrator, "/admin/plans/preview?plan=x")
        wrong = await visit(administrator, "/admin/plans/preview?plan=x&account=y")

        assert (unknown.status_code, wrong.status_code) == (422, 422)
        assert "There is no such plan." in text_of(unknown)
        assert "Enter a whole account id." in text_of(wrong)


class TestMonths:
    @pytest.fixture
    async def gap(self, database: Database) -> AsyncIterator[str]:
        """A journal of whose two events none has arrived."""
        journal, now = str(uuid4()), datetime.now(UTC)
        await send_report(database, 2, closed=True, journal=journal, now=now)
        yield journal
        for number in (1, 2):
            await use(database, 1, time=now, now=now, journal=journal, sequence=number)

    @pytest.mark.costly
    async def test_a_month_with_gaps_is_closed_only_with_a_reason(
        self, administrator: AsyncClient, gap: str
    ) -> None:
        month = MONTHS[6]
        shown = await visit(administrator, f"/admin/invoices?period={month.id}")

        plain = await submit(administrator, shown, "/admin/invoices/close")
        unreasoned = await submit(administrator, shown, "/admin/invoices/close", force="yes")
        forced = await submit(
            administrator, shown, "/admin/invoices/close", force="yes", reason="The disk is lost"
        )
        closed = await follow(administrator, forced)
        journals = await visit(administrator, "/admin/journals")

        assert (plain.status_code, unreasoned.status_code) == (409, 422)
        assert "has not arrived" in text_of(plain)
        assert "Say why the month is closed" in text_of(unreasoned)
        assert f"{month.id} is closed with 0 invoices." in text_of(closed)
        assert gap in journals.text
        assert 'data-testid="missing">2<' in journals.text

    async def test_looking_at_an_open_month_does_not_close_it(
        self, administrator: AsyncClient
    ) -> None:
        for _ in range(2):
            page = await visit(administrator, f"/admin/invoices?period={MONTHS[7].id}")
            assert f'name="period" value="{MONTHS[7].id}"' in page.text

    @pytest.mark.costly
    async def test_an_invoice_is_given_back_once_and_no_more_than_it_has(
        self, administrator: AsyncClient, database: Database, buyer: str
    ) -> None:
        month, now = MONTHS[3], datetime.now(UTC)
        (event, *_) = await use(database, *[1] * 5000, account=buyer, time=within(month), now=now)
        shown = await visit(administrator, f"/admin/invoices?period={month.id}")
        closed = await follow(
            administrator, await submit(administrator, shown, "/admin/invoices/close")
        )
        found = re.findall(r'/admin/invoices/([0-9a-f-]{36})"', closed.text)
        at = f"/admin/invoices/{found[-1]}"
        invoice = await visit(administrator, at)

        fields = {"amount": "1", "reason": "Goodwill"}
        for _ in range(2):
            sent = await submit(administrator, invoice, f"{at}/credit-notes", **fields)
        after = await follow(administrator, sent)
        too_much = await submit(
            administrator, after, f"{at}/credit-notes", amount="9", reason="More"
        )
        without = await submit(administrator, after, f"{at}/credit-notes", amount="x")
        traced = await visit(administrator, f"/admin/events/{event['id']}?account={buyer}")

        assert 'data-testid="invoice-total">$3.00<' in invoice.text
        assert after.text.count("<td>Goodwill</td>") == 1
        assert "of $1.00 is issued" in text_of(after)
        assert (too_much.status_code, without.status_code) == (409, 422)
        assert without.text.count('aria-invalid="true"') == 2
        assert at in traced.text
        assert "5,000 requests" in text_of(traced)

    async def test_the_invoices_of_an_account_are_listed(
        self, administrator: AsyncClient, buyer: str
    ) -> None:
        none = await visit(administrator, f"/admin/invoices?account={buyer}")
        wrong = await visit(administrator, "/admin/invoices?account=x")

        assert "No invoices" in text_of(none)
        assert wrong.status_code == 422


class TestEvents:
    async def test_an_event_is_found_by_its_id_alone_and_followed_to_its_line(
        self, administrator: AsyncClient, database: Database, buyer: str
    ) -> None:
        now = datetime.now(UTC)
        (event,) = await use(database, 3, account=buyer, time=now, now=now)

        page = await visit(administrator, f"/admin/events?id={event['id']}")
        nothing = await visit(administrator, "/admin/events/no-such-event")

        assert page.status_code == 200
        assert 'data-testid="event-amount">$0.0008<' in page.text
        assert "Local" in text_of(page)
        assert "1 request, 3 rows" in text_of(page)
        assert nothing.status_code == 404


class TestRecalls:
    async def test_a_recall_says_before_what_it_credits_and_is_made_once(
        self, administrator: AsyncClient, database: Database, buyer: str
    ) -> None:
        now, model = datetime.now(UTC), f"m{uuid4().hex[:8]}"
        await use(database, 1, account=buyer, time=now, now=now)
        shown = await visit(administrator, f"/admin/recalls?model={model}&version={VERSION}")

        reason = {"reason": "Wrong labels"}
        for _ in range(2):
            sent = await submit(administrator, shown, "/admin/recalls/new", **reason)
        after = await follow(administrator, sent)
        again = await submit(
            administrator, after, "/admin/recalls/new", model=model, version=VERSION, **reason
        )

        assert buyer in shown.text or "first 60" in shown.text
        assert after.text.count(f'<th scope="row">{model}</th>') == 1
        assert again.status_code == 409
