"""`tollgate billing recall`: take back every request answered by a version."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from cli.billing.books import open_books
from cli.options import AsJson
from cli.output import print_json
from services.billing.archives.reading import Archives
from services.billing.archives.store import ArchiveStore
from services.billing.corrections import recalls
from services.billing.corrections.recalls import RecallCreate, RecallRead
from services.billing.settings import BillingSettings
from services.common.db.retrying import in_transaction

_BY = "tollgate-billing-recall"


def recall(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version whose predictions to credit back.")],
    reason: Annotated[str, typer.Option(help="Why; invoices show it.")],
    as_json: AsJson = False,
) -> None:
    """Take back every request answered by a version, including those that arrive later.

    Prepaid charges return to the balance; postpaid ones reduce the account's next invoice.
    """
    try:
        body = RecallCreate(model=model, version=version, reason=reason)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise typer.BadParameter("is invalid", param_hint=name.upper()) from error
    created = asyncio.run(_recall(body))
    if as_json:
        print_json(created.model_dump())
    else:
        typer.echo(f"{model} {version} is recalled: {created.id}")


async def _recall(body: RecallCreate) -> RecallRead:
    """Store the recall and apply it; exit with an error if that fails."""
    now = datetime.now(UTC)
    settings = BillingSettings.load()
    archives = Archives(ArchiveStore(settings.archive))
    async with open_books(settings, failure="the recall failed") as database:
        created = await in_transaction(
            database, lambda session: recalls.create(session, recall=body, by=_BY, now=now)
        )
        await recalls.apply(database, archives, now=now)
    return created
