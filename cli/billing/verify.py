"""`tollgate billing verify`: recompute what billing has stored, from the events."""

import asyncio
import signal
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.process_collector import ProcessCollector

from cli.billing.books import open_books
from cli.options import AsJson
from cli.output import counted, exit_with_error, print_error, print_json
from services.billing import verify as books
from services.billing.archives.reading import Archives
from services.billing.archives.store import ArchiveStore
from services.billing.settings import BillingSettings
from services.billing.watching import BooksWatch
from services.common.db.database import Database
from services.common.tasks import end_tasks
from services.common.telemetry.logs import configure_logging


def verify(
    watch: Annotated[
        bool, typer.Option(help="Keep verifying until stopped; log what differs.")
    ] = False,
    every: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="With --watch: how long to wait between."),
    ] = 3600,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="With --watch: answer /metrics at this port, on all addresses.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute usage, balances and the ledger from the events; exit with 1 if they differ.

    Archived months are read, too; damaged or missing files are named.
    """
    settings = BillingSettings.load()
    if watch:
        configure_logging("billing-verify", level=settings.log_level, style=settings.log_format)
        asyncio.run(_watch(settings, every_s=every, metrics_port=metrics_port))
        return
    differences = asyncio.run(_verify(settings))
    if as_json:
        print_json({"differences": differences})
    else:
        for difference in differences:
            print_error(difference)
        typer.echo(counted(len(differences), "difference") if differences else "all sums agree")
    if differences:
        raise typer.Exit(1)


async def _verify(settings: BillingSettings) -> list[str]:
    """Return a line for each difference; exit with an error if the database cannot be read."""
    archives = Archives(ArchiveStore(settings.archive))
    async with open_books(settings, failure="the database cannot be read") as database:
        return await books.verify(database, archives)


async def _watch(settings: BillingSettings, *, every_s: float, metrics_port: int | None) -> None:
    """Verify until SIGINT or SIGTERM; exit with an error if the port is taken."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    database = Database(settings.database_url.get_secret_value())
    archives = Archives(ArchiveStore(settings.archive))
    watch = BooksWatch(lambda: books.verify(database, archives), every_s=every_s, registry=registry)
    if metrics_port is not None:
        try:
            start_http_server(metrics_port, registry=registry)
        except OSError as error:
            exit_with_error(f"--metrics-port {metrics_port}: {error.strerror}")
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(watch.run()), asyncio.create_task(stopping.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await end_tasks(tasks)
    await database.close()
