"""`python -m services.console` serves the pages."""

import gc

gc.disable()  # while modules are imported, which leaves no garbage; `serve` enables it

import sys

from services.common.http.server import listen, serve
from services.common.settings import exit_with_error
from services.common.telemetry import open_tracing
from services.common.telemetry.logs import configure_logging
from services.console.app import create_app
from services.console.settings import ConsoleSettings


def main(arguments: list[str]) -> None:
    """Serve until a signal stops it.

    Raises:
        SystemExit: wrong usage, or the service cannot start; one line on stderr says why.
    """
    if arguments:
        exit_with_error("usage: python -m services.console")
    settings = ConsoleSettings.load()
    configure_logging("console", level=settings.log_level, style=settings.log_format)
    tracing = open_tracing("console", endpoint=settings.otlp_endpoint)
    app = create_app(settings, tracing=tracing)
    listener = listen(settings.host, settings.port, variable="CONSOLE_PORT")
    serve(
        app,
        listener,
        trusted_proxies=settings.trusted_proxies,
        trusted_hosts=settings.trusted_hosts,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
