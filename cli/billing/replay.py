"""`tollgate billing replay`: deliver leftover usage of inference to billing."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson
from cli.output import exit_with_error, print_json
from services.common.http.client import http_client
from services.inference.metering import replay as leftover
from services.inference.metering.billing_client import BillingClient
from services.inference.metering.replay import Replayed
from services.inference.settings import InferenceSettings


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
    if as_json:
        print_json(asdict(replayed))
    else:
        typer.echo(_describe(replayed))
    if replayed.failure:
        exit_with_error(replayed.failure)
    if replayed.rejected:
        exit_with_error("billing rejected the dead letters; each file has the reason")


async def _replay(folder: Path | None) -> Replayed:
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
            return await leftover.replay(folder or settings.journal_dir, client)
        except OSError as error:
            exit_with_error(f"{error.filename}: {error.strerror}")


def _describe(replayed: Replayed) -> str:
    return (
        f"{replayed.runs} dead runs delivered: {replayed.accepted} events accepted, "
        f"{replayed.duplicates} duplicates, {replayed.conflicts} conflicts; "
        f"{replayed.rejected} dead letters, {replayed.undelivered} events undelivered"
    )
