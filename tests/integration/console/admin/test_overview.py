"""The overview: revenue of months, and what inference has counted."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from httpx import AsyncClient

from services.console.usage.figures import offered_months
from tests.integration.console.conftest import World
from tests.integration.console.hostile_models import MODEL
from tests.integration.console.visits import text_of, visit

BUCKET = "http_request_duration_seconds_bucket"
ROUTE = 'method="POST",route="/v1/models/{model}:predict"'
METRICS = f"""
tollgate_inference_predictions_total{{model="{MODEL}",version="v1"}} 1200.0
tollgate_inference_failures_total{{model="{MODEL}",status="503"}} 3.0
tollgate_inference_failures_total{{model="{MODEL}",status="422"}} 1.0
{BUCKET}{{le="0.025",{ROUTE}}} 1.0
{BUCKET}{{le="+Inf",{ROUTE}}} 1.0
"""


@pytest.fixture
def sales(world: World) -> dict[str, list[dict[str, Any]]]:
    """The revenue that billing reports for each month; others are empty."""
    known: dict[str, list[dict[str, Any]]] = {}
    revenue, inner = FastAPI(openapi_url=None), world.services["billing"]

    @revenue.get("/revenue")
    async def read(period: str) -> dict[str, Any]:
        if not known:
            raise HTTPException(404)
        return {"period": period, "currencies": known.get(period, [])}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (revenue if scope["path"] == "/revenue" else inner)(scope, receive, send)

    world.services["billing"] = app  # type: ignore[assignment]
    return known


def sold(currency: str, revenue: str, *, requests: int = 1, accounts: int = 1) -> dict[str, Any]:
    return {
        "currency": currency,
        "revenue": revenue,
        "requests": requests,
        "rows": requests,
        "accounts": accounts,
    }


def figure(page: object, testid: str) -> str:
    """Return what a page shows as a figure."""
    text = re.search(rf'data-testid="{testid}">([^<]+)<', page.text)  # type: ignore[attr-defined]
    assert text is not None, testid
    return text[1].strip()


async def test_the_revenue_of_the_month_is_shown_in_each_currency(
    administrator: AsyncClient, sales: dict[str, list[dict[str, Any]]]
) -> None:
    this, last = (each.id for each in offered_months(today=datetime.now(UTC).date())[:2])
    sales[this] = [sold("EUR", "3", accounts=2), sold("USD", "12.346", requests=1999, accounts=5)]
    sales[last] = [sold("USD", "7")]

    page = await visit(administrator, "/admin")

    assert figure(page, "revenue") == "$12.35 + €3.00"
    assert (figure(page, "requests"), figure(page, "active-accounts")) == ("2,000", "7")
    assert "last month $7.00" in text_of(page)
    assert "Revenue by month" in page.text


@pytest.mark.usefixtures("sales")
async def test_a_billing_that_knows_no_revenue_leaves_the_rest_of_the_page(
    administrator: AsyncClient,
) -> None:
    page = await visit(administrator, "/admin")

    assert page.status_code == 200
    assert "Billing is unavailable" in text_of(page)
    assert 'data-testid="revenue"' not in page.text
    assert "Live models" in text_of(page)


async def test_a_month_without_calls_says_when_revenue_appears(
    administrator: AsyncClient, sales: dict[str, list[dict[str, Any]]]
) -> None:
    sales["1999-01"] = []

    page = await visit(administrator, "/admin")

    assert figure(page, "revenue") == "0"
    assert "No calls yet" in text_of(page)


async def test_answers_errors_and_their_time_come_from_inference(
    administrator: AsyncClient, inference: FastAPI
) -> None:
    inference.state.metrics = METRICS

    page = await visit(administrator, "/admin")

    shown = [figure(page, name) for name in ("answered", "errors", "refused", "p99")]
    assert shown == ["1,200", "3", "1", "24.8 ms"]
    assert "0.2% of all requests" in text_of(page)
