"""Usage: by day, model, key or tag, with a forecast and an export."""

import asyncio
import re
from collections.abc import Awaitable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, Request, Response

from services.common.http.routing import new_router
from services.console.apis import billing as billing_api
from services.console.apis import keys as keys_api
from services.console.apis.billing import Document
from services.console.apis.calls import Part, load
from services.console.design.locales import show_integer, show_money, show_short_day
from services.console.design.pages import locale_of, show
from services.console.sessions.guards import RequireSession
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import daily, forecast, offered_months, read_month

router = new_router(tag="usage")

GROUPS = {"model": "Model", "version": "Version", "api_key": "API key"}
_TAG = re.compile(r"[A-Za-z0-9._-]{1,64}")

Reader = Annotated[Session, Depends(RequireSession("usage:read"))]


@router.get("/usage")
async def usage_page(
    request: Request,
    session: Reader,
    apis: AppApis,
    period: str = "",
    by: str = "model",
    tag: str = "",
) -> Response:
    """Show what the account used in a month."""
    now = datetime.now(UTC)
    month = read_month(period, today=now.date())
    tag = tag if _TAG.fullmatch(tag) else ""
    by = f"tag:{tag}" if tag else by if by in GROUPS else "model"

    def usage(group_by: str) -> Awaitable[Part[Document]]:
        return load(
            billing_api.read_usage(
                apis.billing,
                token=session.token,
                group_by=group_by,
                since=month.since,
                until=month.until,
            )
        )

    days, groups, names = await asyncio.gather(
        usage("day"), usage(by), _key_names(apis, session, by)
    )
    locale, value = locale_of(request), days.value
    found = daily(value["buckets"], month=month, today=now.date()) if value else []
    currency = value["total"]["currency"] if value else None
    expected = forecast(Decimal(value["total"]["amount"]), month=month, now=now) if value else None
    return show(
        request,
        "usage/usage.html.j2",
        usage=days,
        groups=groups,
        by=by,
        tag=tag,
        heading=tag or GROUPS[by],
        key_names=names,
        month=month,
        months=offered_months(today=now.date()),
        forecast=expected,
        amounts=[
            (show_short_day(day, locale), amount, show_money(amount, currency, locale))
            for day, _, amount in found
        ],
        requests=[
            (show_short_day(day, locale), Decimal(count), show_integer(count, locale))
            for day, count, _ in found
        ],
        group_choices=list(GROUPS.items()),
    )


@router.get("/usage/export.csv")
async def export_usage(
    request: Request, session: Reader, apis: AppApis, period: str = ""
) -> Response:
    """Download a month's events."""
    month = read_month(period, today=datetime.now(UTC).date())
    exported = await billing_api.export_usage(apis.billing, token=session.token, period=month.id)
    return Response(
        exported.content,
        media_type="text/csv",
        headers={
            "Content-Disposition": f'attachment; filename="usage-{month.id}.csv"',
            "Cache-Control": "no-store",
        },
    )


async def _key_names(apis: Apis, session: Session, by: str) -> dict[str, str]:
    """Return the names of the account's keys by id, where they are needed and may be read."""
    if by != "api_key" or not session.may("keys:write"):
        return {}
    keys: Part[list[keys_api.Document]] = await load(
        keys_api.list_keys(apis.auth, token=session.token)
    )
    return {key["id"]: key["name"] for key in keys.value or ()}
