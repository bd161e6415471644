"""`tollgate billing close`: close a month and issue its invoices."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from cli.options import AsJson
from cli.output import counted, exit_with_error, print_error, print_json, print_table
from services.billing.fields import PERIOD_PATTERN
from services.billing.invoices import closing
from services.billing.invoices.issuing import Books
from services.billing.invoices.schemas import BillingRunRead
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.errors import ServiceError


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
    """Run it; exit with an error if it is refused or the database is away."""
    settings = BillingSettings.load()
    database = Database(settings.database_url.get_secret_value())
    try:
        return await closing.run(
            database,
            period=period,
            forced_reason=forced_reason,
            books=Books(settings.seller, settings.tax_rules),
            now=datetime.now(UTC),
            on_progress=_report,
        )
    except ServiceError as error:
        exit_with_error(error.detail)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"BILLING_DATABASE_URL: the month could not be closed: {cause}")
    finally:
        await database.close()


def _report(accounts: int) -> None:
    if accounts % 1000 == 0:
        typer.echo(f"{counted(accounts, 'account')} invoiced", err=True)
