"""`tollgate usage`: draw what an account used in a month."""

import json
import sys
from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import typer

from cli.discovery import find_service
from cli.options import AsJson
from cli.output import counted, exit_with_error, print_json, print_table
from cli.settings import LocalSettings

BAR_CHARS = 40
TIMEOUT_S = 30.0

Document = dict[str, Any]


def usage(
    month: Annotated[
        str, typer.Argument(metavar="[MONTH]", help="Such as 2026-10; default: this month.")
    ] = "",
    by: Annotated[
        str, typer.Option(help="Also list by model, version, api_key or tag:NAME.")
    ] = "model",
    as_json: AsJson = False,
) -> None:
    """Draw the requests of each day of a month, and what they cost.

    The account is that of TOLLGATE_API_KEY at TOLLGATE_URL, which is the URL of billing or of any
    other service; by default, the local demo user.
    """
    now = datetime.now(UTC)
    since, until = _bounds(month, now=now)
    window = {"from": since.isoformat(), "to": until.isoformat()}
    try:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
            url, headers = _connect(http, LocalSettings.load())
            days, groups = (
                _read(http, f"{url}/usage", headers, window | {"group_by": group})
                for group in ("day", by)
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        exit_with_error(f"billing cannot be reached: {error}")
    if as_json:
        print_json({"total": days["total"], "days": days["buckets"], by: groups["buckets"]})
        return
    total = days["total"]
    typer.echo(
        f"{since:%Y-%m}: {counted(total['requests'], 'request')}, "
        f"{counted(total['rows'], 'row')}, {total['amount']} {total['currency'] or ''}".rstrip()
    )
    print_table(draw_days(days["buckets"], since=since, until=min(until, now), block=_block()))
    if groups["buckets"]:
        typer.echo("")
        print_table([(by, "requests", "rows", "amount"), *map(_cells, groups["buckets"])])


def draw_days(
    buckets: Sequence[Document], *, since: datetime, until: datetime, block: str
) -> list[tuple[str, str, str, str]]:
    """Return a line for each day of a month: its date, a bar, its requests and its amount.

    Args:
        until: when the month ends, or now.
        block: what bars are made of.
    """
    used = {bucket["key"]: bucket for bucket in buckets}
    most = max((bucket["requests"] for bucket in buckets), default=0)
    days = monthrange(since.year, since.month)[1]
    lines = []
    for number in range(1, days + 1):
        day = since.replace(day=number)
        if day >= until:
            break
        bucket = used.get(f"{day:%Y-%m-%d}", {"requests": 0, "amount": "0"})
        # A day with any usage has a bar.
        width = -(-BAR_CHARS * bucket["requests"] // most) if most else 0
        bar = f"{block * width:<{BAR_CHARS}}"
        lines.append((f"{day:%a %d}", bar, f"{bucket['requests']:,}", bucket["amount"]))
    return lines


def _cells(bucket: Document) -> tuple[str, str, str, str]:
    key = "-" if bucket["key"] is None else bucket["key"]
    return key, f"{bucket['requests']:,}", f"{bucket['rows']:,}", bucket["amount"]


def _block() -> str:
    """Return a block, or another character where the terminal has none."""
    return "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"


def _bounds(month: str, *, now: datetime) -> tuple[datetime, datetime]:
    """Return the start of a month and of the next one."""
    try:
        start = datetime.strptime(month or f"{now:%Y-%m}", "%Y-%m").replace(tzinfo=UTC)
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    except ValueError as error:
        raise typer.BadParameter("MONTH must be a month such as 2026-10") from error
    return start, end


def _connect(http: httpx.Client, settings: LocalSettings) -> tuple[str, dict[str, str]]:
    """Return the URL of billing, and the headers with the caller's credentials."""
    key = settings.api_key.get_secret_value()
    if settings.url:
        if not key:
            exit_with_error("TOLLGATE_URL is set; set TOLLGATE_API_KEY, too")
        return find_service(http, settings.url, "billing"), {"X-API-Key": key}
    local = f"http://127.0.0.1:{settings.billing_port}"
    if key:
        return local, {"X-API-Key": key}
    try:
        demo = json.loads((settings.home / "credentials.json").read_bytes())["demo"]
        form = {"grant_type": "password", "username": demo["email"], "password": demo["password"]}
    except (OSError, ValueError, KeyError, TypeError):
        exit_with_error("set TOLLGATE_API_KEY and TOLLGATE_URL, or start Tollgate with `make up`")
    granted = http.post(f"http://127.0.0.1:{settings.auth_port}/token", data=form)
    if granted.is_error:
        exit_with_error(f"the demo user cannot sign in: auth answered {granted.status_code}")
    return local, {"Authorization": f"Bearer {granted.json()['access_token']}"}


def _read(http: httpx.Client, url: str, headers: dict[str, str], query: dict[str, str]) -> Document:
    answer = http.get(url, headers=headers, params=query)
    if answer.is_error:
        try:
            detail = answer.json()["detail"]
            errors = answer.json().get("errors", [])
        except (ValueError, KeyError, TypeError):
            exit_with_error(f"billing answered {answer.status_code}")
        exit_with_error(" ".join([detail, *(each["msg"] for each in errors)]))
    document: Document = answer.json()
    return document
