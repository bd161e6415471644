"""`tollgate billing close`: close a month and issue its invoices."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.billing.books import open_books
from cli.options import AsJson
from cli.output import counted, print_error, print_json, print_table
from services.billing.fields import PERIOD_PATTERN
from services.billing.invoices import closing
from services.billing.invoices.issuing import Books
from services.billing.invoices.schemas import BillingRunRead
from services.billing.settings import BillingSettings


def close(
    period: Annotated[str, typer.Argument(help="A UTC month that is over, such as 2026-10.")],
    force: Annotated[bool, typer.Option(help="Close it although usage is missing.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is forced; kept with the month.")] = "",
    as_json: AsJson = False,
) -> None:
    """Close a month and issue its invoices.

    A repeat prints the same invoices. A run that was interrupted continues when repeated.
    Accounts that could not get an invoice are named; the exit code is then 1.
    """
    if not re.fullmatch(PERIOD_PATTERN, period):
        raise typer.BadParameter("must be a month, such as 2026-10", param_hint="PERIOD")
    if force and not reason:
        raise typer.BadParameter("--force needs a --reason", param_hint="--reason")
    done = asyncio.run(_close(period, forced_reason=reason if force else None))
    if as_json:
        print_json(done.model_dump())
        return
    print_table([[each.number, each.account, each.total, each.currency] for each in done.invoices])
    typer.echo(f"{period} is closed: {counted(len(done.invoices), 'invoice')}")
    for each in done.failed:
        print_error(f"account {each.account} got no invoice: {each.reason}")
    if done.failed:
        raise typer.Exit(1)


async def _close(period: str, *, forced_reason: str | None) -> BillingRunRead:
    """Run it; exit with an error if it is refused or the database is unavailable."""
    settings = BillingSettings.load()
    async with open_books(settings, failure="the month could not be closed") as database:
        return await closing.run(
            database,
            period=period,
            forced_reason=forced_reason,
            books=Books(settings.seller, settings.tax_rules),
            now=datetime.now(UTC),
            on_progress=_report,
        )


def _report(accounts: int) -> None:
    if accounts % 1000 == 0:
        typer.echo(f"{counted(accounts, 'account')} invoiced", err=True)
