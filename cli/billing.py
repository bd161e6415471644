"""`tollgate billing`: verify sums against the events, and deliver leftover usage."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import exit_with_error

if TYPE_CHECKING:
    from services.inference.metering.journal.replay import Replayed

billing = typer.Typer(help="Verify the books, and deliver leftover usage.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@billing.command()
def verify(as_json: AsJson = False) -> None:
    """Recompute usage, reservations and balances from the events; exit with 1 if they differ."""
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
    """Return a line for each difference; exit with an error if the database cannot be read."""
    # Imported here because `tollgate --help` does not need a database.
    from sqlalchemy.exc import SQLAlchemyError

    from services.billing.settings import BillingSettings
    from services.billing.verify import verify
    from services.common.db.database import Database

    database = Database(BillingSettings.load().database_url.get_secret_value())
    try:
        return await verify(database)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"BILLING_DATABASE_URL: the database cannot be read: {cause}")
    finally:
        await database.close()


@billing.command()
def replay(
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The journal folder; default INFERENCE_JOURNAL_DIR."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send the events of dead processes and the dead letters of a journal folder to billing.

    Billing counts every event once, so this can be repeated. Dead letters that billing accepts are
    deleted. The exit code is 1 if anything could not be delivered.
    """
    replayed = asyncio.run(_replay(journal))
    typer.echo(json.dumps(asdict(replayed)) if as_json else _describe(replayed))
    if replayed.failure:
        exit_with_error(replayed.failure)
    if replayed.rejected:
        exit_with_error("billing rejected the dead letters; each file has the reason")


async def _replay(folder: Path | None) -> "Replayed":
    import structlog

    from services.common.http.app import http_client
    from services.inference.metering.billing_client import BillingClient
    from services.inference.metering.journal.replay import replay
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
            exit_with_error(f"{error.filename}: {error.strerror}")


def _describe(replayed: "Replayed") -> str:
    return (
        f"{replayed.runs} dead runs delivered: {replayed.accepted} events accepted, "
        f"{replayed.duplicates} duplicates, {replayed.conflicts} conflicts; "
        f"{replayed.rejected} dead letters, {replayed.undelivered} events undelivered"
    )
