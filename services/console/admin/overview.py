"""The overview: revenue, services, journals and models on one page."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.health import figures_of, judge_drift, order_journals
from services.console.admin.revenue import Days, Revenue, read_days, read_revenue
from services.console.apis import admin_auth, admin_billing, admin_inference
from services.console.apis.admin_inference import VersionFigures
from services.console.apis.calls import Api, Part, load
from services.console.design.locales import show_integer, show_money, show_short_day
from services.console.design.pages import locale_of, show
from services.console.sessions.guards import Administrator
from services.console.state import AppApis
from services.console.usage.figures import Month, month_of

router = new_router(tag="administration")

_MAX_MODELS = 20
_MAX_ACCOUNTS = 8


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A model in the overview."""

    name: str
    status: dict[str, Any]
    figures: VersionFigures


@router.get("/admin")
async def overview(request: Request, session: Administrator, apis: AppApis) -> Response:
    """Show how the business and the platform do."""
    today = datetime.now(UTC).date()
    month = month_of(today)
    (sales, journals, models, emails), health = await asyncio.gather(
        asyncio.gather(
            load(_sales(apis.billing, token=session.token, month=month, today=today)),
            load(admin_billing.list_journals(apis.billing, token=session.token)),
            load(_live_models(apis.inference, token=session.token)),
            load(admin_auth.find_emails(apis.auth, token=session.token)),
        ),
        asyncio.gather(
            *(
                admin_inference.check_health(api)
                for api in (apis.auth, apis.inference, apis.billing)
            )
        ),
    )
    locale, days = locale_of(request), sales.value[1] if sales.value else None
    return show(
        request,
        "admin/overview.html.j2",
        month=month,
        sales=sales,
        chart=[
            (show_short_day(day, locale), amount, show_money(amount, days.currency, locale))
            for day, _, amount in days.days
        ]
        if days
        else [],
        calls=[
            (show_short_day(day, locale), requests, show_integer(requests, locale))
            for day, requests, _ in days.days
        ]
        if days
        else [],
        emails=emails.value or {},
        max_accounts=_MAX_ACCOUNTS,
        journals=Part(order_journals(journals.value), None)
        if journals.value is not None
        else journals,
        models=models,
        health=health,
        judge_drift=judge_drift,
    )


async def _sales(
    billing: Api, *, token: str, month: Month, today: date
) -> tuple[Revenue, Days | None]:
    revenue = await read_revenue(billing, token=token, period=month.id)
    days = await read_days(billing, token=token, revenue=revenue, month=month, today=today)
    return revenue, days


async def _live_models(inference: Api, *, token: str) -> list[LiveModel]:
    """Return the first live models; their figures are missing if the metrics cannot be read."""
    names = await admin_inference.list_models(inference, token=token)
    figures, found = await asyncio.gather(
        load(admin_inference.read_figures(inference)),
        asyncio.gather(
            *(
                admin_inference.describe_model(inference, token=token, model=name)
                for name in names[:_MAX_MODELS]
            )
        ),
    )
    return [
        LiveModel(each["name"], each, figures_of(figures.value, each["name"], each["version"]))
        for each in found
    ]
