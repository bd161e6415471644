"""Usage: by day, model, key or tag, with a forecast and an export."""

import asyncio
import re
from collections.abc import Awaitable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlencode

from babel import Locale
from fastapi import Depends, Query, Request, Response

from services.common.http.routing import new_router
from services.console.apis import billing as billing_api
from services.console.apis import keys as keys_api
from services.console.apis.billing import Document
from services.console.apis.calls import Part, load
from services.console.design.locales import (
    show_integer,
    show_money,
    show_short_day,
    show_short_month,
)
from services.console.design.pages import locale_of, show
from services.console.sessions.guards import RequireSession
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import daily, forecast, monthly, read_month
from services.console.usage.ranges import NAMES, Range, read_range

router = new_router(tag="usage")

GROUPS = {"model": "Model", "version": "Version", "api_key": "API key"}
_TAG = re.compile(r"[A-Za-z0-9._-]{1,64}")

Reader = Annotated[Session, Depends(RequireSession("usage:read"))]


@router.get("/usage")
async def usage_page(
    request: Request,
    session: Reader,
    apis: AppApis,
    since: Annotated[str, Query(alias="from")] = "",
    until: Annotated[str, Query(alias="to")] = "",
    name: Annotated[str, Query(alias="range")] = "month",
    by: str = "model",
    tag: str = "",
) -> Response:
    """Show what the account used from one day to another."""
    now = datetime.now(UTC)
    days, errors = read_range(since.strip(), until.strip(), name=name, today=now.date())
    tag = tag if _TAG.fullmatch(tag) else ""
    by = f"tag:{tag}" if tag else by if by in GROUPS else "model"

    def usage(group_by: str) -> Awaitable[Part[Document]]:
        return load(
            billing_api.read_usage(
                apis.billing,
                token=session.token,
                group_by=group_by,
                since=days.since,
                until=days.until,
            )
        )

    steps, groups, names = await asyncio.gather(
        usage("month" if days.is_long else "day"), usage(by), _key_names(apis, session, by)
    )
    return show(
        request,
        "usage/usage.html.j2",
        status=422 if errors else 200,
        usage=steps,
        groups=groups,
        by=by,
        tag=tag,
        heading=tag or GROUPS[by],
        key_names=names,
        days=days,
        is_live=days.includes(now.date()),
        typed={"from": since, "to": until} if errors else {},
        errors=errors,
        ranges=[(name, text, _address(name, by, tag)) for name, text in NAMES.items()],
        group_choices=list(GROUPS.items()),
        **_figures(steps.value, days, now, locale_of(request)),
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


def _address(name: str, by: str, tag: str) -> str:
    """Return the address of a range that is offered, grouped as the page is."""
    query = {"range": name} | ({"tag": tag} if tag else {"by": by})
    return f"/usage?{urlencode(query)}"


def _figures(usage: Document | None, days: Range, now: datetime, locale: Locale) -> dict[str, Any]:
    """Return the points of the charts, and the forecast if the range is this month."""
    if usage is None:
        return {"amounts": [], "requests": [], "forecast": None}
    by_step, name_step = (monthly, show_short_month) if days.is_long else (daily, show_short_day)
    found = by_step(usage["buckets"], first=days.first, last=days.last)
    currency = usage["total"]["currency"]
    return {
        "amounts": [
            (name_step(day, locale), amount, show_money(amount, currency, locale))
            for day, _, amount in found
        ],
        "requests": [
            (name_step(day, locale), Decimal(count), show_integer(count, locale))
            for day, count, _ in found
        ],
        "forecast": forecast(Decimal(usage["total"]["amount"]), month=days.month, now=now)
        if days.name == "month"
        else None,
    }


async def _key_names(apis: Apis, session: Session, by: str) -> dict[str, str]:
    """Return the names of the account's keys by id, where they are needed and may be read."""
    if by != "api_key" or not session.may("keys:write"):
        return {}
    keys: Part[list[keys_api.Document]] = await load(
        keys_api.list_keys(apis.auth, token=session.token)
    )
    return {key["id"]: key["name"] for key in keys.value or ()}
