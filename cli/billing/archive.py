"""`tollgate billing archive`: move a month's usage events into files."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.billing.books import open_books
from cli.options import AsJson
from cli.output import counted, print_json
from services.billing.archives import service
from services.billing.archives.service import ArchiveRead
from services.billing.archives.store import ArchiveStore
from services.billing.fields import PERIOD_PATTERN
from services.billing.settings import BillingSettings


def archive(
    period: Annotated[str, typer.Argument(help="An invoiced UTC month, such as 2026-10.")],
    as_json: AsJson = False,
) -> None:
    """Move the usage events of an invoiced month from the database into Parquet files.

    They are in BILLING_ARCHIVE, where receipts, exports and corrections still find them. The
    events are deleted once the files are written, read back, and agree with the invoices. A run
    that was interrupted continues when repeated; a repeat changes nothing.
    """
    if not re.fullmatch(PERIOD_PATTERN, period):
        raise typer.BadParameter("must be a month, such as 2026-10", param_hint="PERIOD")
    done = asyncio.run(_archive(period))
    if as_json:
        print_json(done.model_dump(mode="json"))
    else:
        size = f"{counted(done.files, 'file')} of {done.bytes / 1e6:.1f} MB"
        typer.echo(f"{period} is archived: {counted(done.requests, 'event')} in {size}")


async def _archive(period: str) -> ArchiveRead:
    """Run it; exit with an error if it is refused or something is unavailable."""
    settings = BillingSettings.load()
    async with open_books(settings, failure="the month could not be archived") as database:
        return await service.archive(
            database,
            ArchiveStore(settings.archive),
            period=period,
            keep_months=settings.retention_months,
            now=datetime.now(UTC),
            on_progress=_report,
        )


def _report(step: str, events: int) -> None:
    typer.echo(f"{counted(events, 'event')} {step}", err=True)
