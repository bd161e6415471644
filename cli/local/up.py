"""`tollgate up`: run the four services on this machine until a signal arrives."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
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
_POLL_S = 0.1
_REPORT_EVERY_S = 10.0
_ECHO_S = 1.0
"""A signal to the process group may arrive twice: directly, and forwarded by `make`."""


log = structlog.get_logger()


def up(
    json: Annotated[bool, typer.Option("--json", help="Log JSON even on a terminal.")] = False,
) -> None:
    """Run the console, auth, inference and billing on this machine in the foreground.

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
    """Prepare, run and stop the services; return the exit code.

    On a first start, the sample is trained beside everything that does not need it.
    """
    began = time.monotonic()
    plan = settings.default_plan or str(_LOCAL_PLAN)
    environment = {
        **_public_urls(settings),
        **os.environ,
        "TOLLGATE_HOME": str(home),
        "BILLING_DEFAULT_PLAN": plan,
    }
    preparation = Process("cli.local.prepare", environment=environment)
    sample = Process("cli.local.sample", environment=environment)
    auth = Service("auth", port=settings.auth_port, environment=environment)
    billing = Service("billing", port=settings.billing_port, environment=environment)
    inference = Service("inference", port=settings.inference_port, environment=environment)
    console = Service("console", port=settings.console_port, environment=environment)

    def kill_all() -> None:
        for process in (preparation, sample, console, inference, billing, auth):
            process.kill()

    asked_to_stop = asyncio.create_task(_asked_to_stop(or_else=kill_all).wait())

    has_databases: asyncio.Task[int] | None = None
    has_sample: asyncio.Task[int] | None = None
    is_prepared = prepared.is_prepared(home, environment=environment)
    log.info(f"starting in {home}")
    if not is_prepared:
        has_databases = asyncio.create_task(_run_step("databases", preparation.run()))
        has_sample = asyncio.create_task(_run_step("sample model", sample.run()))
    running = [
        asyncio.create_task(auth.run(after=has_databases)),
        asyncio.create_task(billing.run(after=has_databases)),
        asyncio.create_task(inference.run(after=has_sample)),
        asyncio.create_task(console.run(after=None)),
    ]

    async def greet() -> None:
        services = (console, auth, inference, billing)
        await asyncio.gather(*map(_until_ready, services))
        if not is_prepared:
            _record(home, environment)
        urls = {service.name: service.url for service in services}
        credentials, seconds = home / "credentials.json", time.monotonic() - began
        typer.echo(table(urls, credentials=credentials, seconds=seconds))
        typer.echo(quickstart(urls))

    greeting = asyncio.create_task(greet())
    await asyncio.wait({asked_to_stop, *running}, return_when=asyncio.FIRST_COMPLETED)

    is_refused = not asked_to_stop.done()
    greeting.cancel()
    if is_refused:
        kill_all()  # no work is in progress
    for process in (
        sample,
        preparation,
        console,
        inference,
        billing,
        auth,
    ):  # each may need the next ones
        await process.stop()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, StartRefused):
            raise outcome
    if is_refused:
        return 1
    log.info("stopped")
    return 0


def _public_urls(settings: LocalSettings) -> dict[str, str]:
    """Return the variables with the URLs that the services publish, unless others are set."""
    ports = {
        "INFERENCE": settings.inference_port,
        "BILLING": settings.billing_port,
        "CONSOLE": settings.console_port,
    }
    return {f"{name}_PUBLIC_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}


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


def _record(home: Path, environment: Mapping[str, str]) -> None:
    """Record that everything is prepared; without that, the next start prepares again."""
    try:
        prepared.record(home, environment=environment)
    except OSError as error:
        log.warning(f"cannot write to {home}: {error.strerror}")


async def _run_step(name: str, step: Awaitable[int]) -> int:
    """Await a step that has to succeed, and log how long it took; return its exit code."""
    started = time.monotonic()
    code = await step
    if code == 0:
        _log_ready(name, since=started)
    return code


def _log_ready(name: str, *, since: float) -> None:
    log.info(f"{name} ready", seconds=round(time.monotonic() - since, 1))


async def _until_ready(service: Service) -> None:
    await service.started.wait()
    started = reported_at = time.monotonic()
    while (why := await asyncio.to_thread(failing, service.port)) is not None:
        if time.monotonic() - reported_at > _REPORT_EVERY_S:
            reported_at = time.monotonic()
            log.info(f"waiting for {service.name}: {why}")
        await asyncio.sleep(_POLL_S)
    service.has_been_ready = True
    _log_ready(service.name, since=started)
