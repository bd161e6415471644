"""`tollgate up`: run the three services on this machine until a signal arrives."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cli.local import prepared, state
from cli.local.quickstart import quickstart, table
from cli.local.supervisor import Process, Service, StartRefused
from cli.output import exit_with_error
from cli.settings import LocalSettings
from services.common.http.readiness import failing
from services.common.telemetry.logs import configure_logging

_LOCAL_PLAN = Path(__file__).parents[2] / "services" / "billing" / "plans" / "local_plan.json"
_REPORT_EVERY_S = 10.0
_ECHO_S = 1.0
"""A signal to the process group may arrive twice: directly, and forwarded by `make`."""


log = structlog.get_logger()


def up(
    json: Annotated[bool, typer.Option("--json", help="Log JSON even on a terminal.")] = False,
) -> None:
    """Run auth, inference and billing on this machine in the foreground.

    The first start creates the state folder with its keys and credentials, and trains and releases
    the sample model; later starts take seconds. Ctrl-C or SIGTERM stops after work in progress is
    finished; a second one stops at once.
    """
    try:
        if sys.stderr.isatty() and not json:
            os.environ.setdefault("TOLLGATE_LOG_FORMAT", "text")
        settings = LocalSettings.load()
        configure_logging("tollgate", style=settings.log_format)
        home = settings.home.absolute()
        with state.opened(home):
            state.credentials(home)
            code = asyncio.run(_up(settings, home))
    except state.StateError as error:
        exit_with_error(str(error))
    except SystemExit as error:  # a bad setting, already reported
        raise typer.Exit(1) from error
    raise typer.Exit(code)


async def _up(settings: LocalSettings, home: Path) -> int:
    """Prepare, run and stop the services; return the exit code."""
    plan = settings.default_plan or str(_LOCAL_PLAN)
    environment = os.environ | {"TOLLGATE_HOME": str(home), "BILLING_DEFAULT_PLAN": plan}
    preparation = Process("cli.local.prepare", environment=environment)
    auth = Service("auth", port=settings.auth_port, environment=environment)
    billing = Service("billing", port=settings.billing_port, environment=environment)
    inference = Service("inference", port=settings.inference_port, environment=environment)

    def kill_all() -> None:
        for process in (preparation, inference, billing, auth):
            process.kill()

    asked_to_stop = asyncio.create_task(_asked_to_stop(or_else=kill_all).wait())

    if not prepared.is_prepared(home, environment=environment):
        preparing = asyncio.create_task(preparation.run())
        await asyncio.wait({asked_to_stop, preparing}, return_when=asyncio.FIRST_COMPLETED)
        if not preparing.done():
            await preparation.stop()
            return 0
        if preparing.result() != 0:
            return 1

    running = [asyncio.create_task(service.run()) for service in (auth, billing, inference)]
    greeting = asyncio.create_task(_greet(auth, inference, billing, home / "credentials.json"))
    await asyncio.wait({asked_to_stop, *running}, return_when=asyncio.FIRST_COMPLETED)

    greeting.cancel()
    if not asked_to_stop.done():
        kill_all()  # a service refused its settings, so no work is in progress
    for service in (inference, billing, auth):  # each may need the next ones to finish
        await service.stop()
    try:
        await asyncio.gather(*running)
    except StartRefused:
        return 1
    return 0


def _asked_to_stop(*, or_else: Callable[[], None]) -> asyncio.Event:
    """Return an event that the first signal sets; a second signal calls `or_else`."""
    asked = asyncio.Event()
    asked_at = float("inf")

    def on_signal() -> None:
        nonlocal asked_at
        if not asked.is_set():
            asked_at = time.monotonic()
            asked.set()
            log.info("stopping after work in progress is finished")
        elif time.monotonic() - asked_at > _ECHO_S:
            or_else()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return asked


async def _greet(auth: Service, inference: Service, billing: Service, credentials: Path) -> None:
    """Print the URLs and the quickstart once all services are ready."""
    await asyncio.gather(*(_until_ready(service) for service in (auth, inference, billing)))
    urls = {"auth": auth.url, "inference": inference.url, "billing": billing.url}
    typer.echo(table(**urls, credentials=credentials) + "\n" + quickstart(**urls))


async def _until_ready(service: Service) -> None:
    reported_at = time.monotonic()
    while (why := await asyncio.to_thread(failing, service.port)) is not None:
        if time.monotonic() - reported_at > _REPORT_EVERY_S:
            reported_at = time.monotonic()
            log.info(f"waiting for {service.name}: {why}")
        await asyncio.sleep(0.1)
    service.has_been_ready = True
