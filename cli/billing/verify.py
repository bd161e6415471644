"""`tollgate billing verify`: recompute what billing has stored, from the events."""

import asyncio

import typer
from sqlalchemy.exc import SQLAlchemyError

from cli.options import AsJson
from cli.output import counted, exit_with_error, print_error, print_json
from services.billing import verify as books
from services.billing.settings import BillingSettings
from services.common.db.database import Database


def verify(as_json: AsJson = False) -> None:
    """Recompute usage, balances and the ledger from the events; exit with 1 if they differ."""
    differences = asyncio.run(_verify())
    if as_json:
        print_json({"differences": differences})
    else:
        for difference in differences:
            print_error(difference)
        typer.echo(counted(len(differences), "difference") if differences else "all sums agree")
    if differences:
        raise typer.Exit(1)


async def _verify() -> list[str]:
    """Return a line for each difference; exit with an error if the database cannot be read."""
    database = Database(BillingSettings.load().database_url.get_secret_value())
    try:
        return await books.verify(database)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"BILLING_DATABASE_URL: the database cannot be read: {cause}")
    finally:
        await database.close()
