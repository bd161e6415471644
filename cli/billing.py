"""`tollgate billing`: is every sum what the events say, and is there usage left to deliver."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.inference.metering.replay import Replayed

billing = typer.Typer(help="Check the money, and deliver usage that was left behind.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@billing.command()
def verify(as_json: AsJson = False) -> None:
    """Recompute usage, reservations and balances from the events; exit with 1 on a difference."""
    differences = asyncio.run(_verify())
    if as_json:
        typer.echo(json.dumps({"differences": differences}))
    else:
        for difference in differences:
            typer.echo(f"error: {difference}", err=True)
        typer.echo(f"{len(differences)} differences" if differences else "all sums agree")
    if differences:
        raise typer.Exit(1)


async def _verify() -> list[str]:
    """What does not agree, a line each.

    Raises:
        typer.Exit: the database cannot be read; one line on stderr says why.
    """
    # Imported here, because `tollgate --help` has no need of a database.
    from sqlalchemy.exc import SQLAlchemyError

    from services.billing.settings import BillingSettings
    from services.billing.verify import verify
    from services.common.db import Database

    database = Database(BillingSettings.load().database_url.get_secret_value())
    try:
        return await verify(database)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise _failed(f"BILLING_DATABASE_URL: the database cannot be read: {cause}") from None
    finally:
        await database.close()


@billing.command()
def replay(
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A journal's folder; default INFERENCE_JOURNAL_DIR."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what dead processes left in a journal folder, and its dead letters, to billing.

    Billing counts every event once, so this may be repeated. Dead letters that are taken now are
    removed. Exit code 1 if anything could not be delivered.
    """
    replayed = asyncio.run(_replay(journal))
    typer.echo(json.dumps(asdict(replayed)) if as_json else _describe(replayed))
    if replayed.failure:
        raise _failed(replayed.failure)
    if replayed.rejected:
        raise _failed("billing does not take the dead letters; they say why")


async def _replay(folder: Path | None) -> "Replayed":
    import structlog

    from services.common.http import http_client
    from services.inference.metering.billing import BillingClient
    from services.inference.metering.replay import replay
    from services.inference.settings import InferenceSettings

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = InferenceSettings.load()
    async with http_client() as http:
        client = BillingClient(
            http,
            billing_url=settings.billing_url,
            auth_url=settings.auth_address,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
        )
        try:
            return await replay(folder or settings.journal_dir, client)
        except OSError as error:
            raise _failed(f"{error.filename}: {error.strerror}") from None


def _describe(replayed: "Replayed") -> str:
    return (
        f"{replayed.runs} dead runs delivered: {replayed.accepted} events accepted, "
        f"{replayed.duplicates} duplicates, {replayed.conflicts} conflicts; "
        f"{replayed.rejected} dead letters, {replayed.undelivered} events undelivered"
    )


def _failed(why: str) -> typer.Exit:
    """Say why on stderr; what to raise."""
    typer.echo(f"error: {' '.join(why.split())}", err=True)
    return typer.Exit(1)
