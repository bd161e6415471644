"""The overview: revenue, calls, services, journals and models on one page."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from babel import Locale
from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.health import judge_drift, order_journals
from services.console.admin.revenue import Revenue, read_revenue
from services.console.apis import admin_billing, admin_inference
from services.console.apis.admin_inference import Figures, Unanswered, VersionFigures
from services.console.apis.calls import Api, Part, load
from services.console.design.locales import show_integer, show_money, show_short_month
from services.console.design.pages import locale_of, show
from services.console.sessions.guards import Administrator
from services.console.state import AppApis
from services.console.usage.figures import Month, month_of, offered_months

router = new_router(tag="administration")

_MAX_MODELS = 20
_MONTHS = 6
"""How many months the charts show."""


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A model in the overview."""

    name: str
    status: dict[str, Any]
    figures: VersionFigures
    unanswered: Unanswered


@router.get("/admin")
async def overview(request: Request, session: Administrator, apis: AppApis) -> Response:
    """Show how the business and the platform do."""
    today = datetime.now(UTC).date()
    (months, journals, figures, statuses), health = await asyncio.gather(
        asyncio.gather(
            load(_read_months(apis.billing, token=session.token, today=month_of(today))),
            load(admin_billing.list_journals(apis.billing, token=session.token)),
            load(admin_inference.read_figures(apis.inference)),
            load(_read_statuses(apis.inference, token=session.token)),
        ),
        asyncio.gather(
            *(
                admin_inference.check_health(api)
                for api in (apis.auth, apis.inference, apis.billing)
            )
        ),
    )
    locale, counted = locale_of(request), figures.value or Figures()
    return show(
        request,
        "admin/overview.html.j2",
        month=month_of(today),
        months=months,
        revenue_chart=_draw_revenue(months.value or [], locale),
        requests_chart=_draw_requests(months.value or [], locale),
        figures=figures,
        p99_s=counted.durations.quantile(0.99),
        journals=Part(order_journals(journals.value), None)
        if journals.value is not None
        else journals,
        models=Part(_live_models(statuses.value, counted))
        if statuses.value is not None
        else statuses,
        health=health,
        judge_drift=judge_drift,
    )


async def _read_months(billing: Api, *, token: str, today: Month) -> list[Revenue]:
    """Return the latest months with their revenue, the oldest first."""
    months = offered_months(today=today.first)[:_MONTHS]
    return list(
        await asyncio.gather(
            *(read_revenue(billing, token=token, month=month) for month in reversed(months))
        )
    )


def _main_currency(months: list[Revenue]) -> str | None:
    """Return the currency that brings in most in the latest month that has any revenue."""
    return next((each.currencies[0].currency for each in reversed(months) if each.currencies), None)


def _draw_revenue(months: list[Revenue], locale: Locale) -> list[tuple[str, Decimal, str]]:
    """Return the points of the chart of revenue, in the main currency."""
    currency = _main_currency(months)
    if currency is None:
        return []
    amounts = [(each.month, each.amount(currency)) for each in months]
    return [
        (show_short_month(month.first, locale), amount, show_money(amount, currency, locale))
        for month, amount in amounts
    ]


def _draw_requests(months: list[Revenue], locale: Locale) -> list[tuple[str, Decimal, str]]:
    """Return the points of the chart of requests."""
    return [
        (
            show_short_month(each.month.first, locale),
            Decimal(each.requests),
            show_integer(each.requests, locale),
        )
        for each in months
    ]


async def _read_statuses(inference: Api, *, token: str) -> list[dict[str, Any]]:
    """Return what the first live models are."""
    names = await admin_inference.list_models(inference, token=token)
    return list(
        await asyncio.gather(
            *(
                admin_inference.describe_model(inference, token=token, model=name)
                for name in names[:_MAX_MODELS]
            )
        )
    )


def _live_models(statuses: list[dict[str, Any]], figures: Figures) -> list[LiveModel]:
    return [
        LiveModel(
            each["name"],
            each,
            figures.of_version(each["name"], each["version"]),
            figures.of_model(each["name"]),
        )
        for each in statuses
    ]
