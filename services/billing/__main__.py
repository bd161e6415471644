"""Serve with `python -m services.billing`; migrate with `python -m services.billing migrate`."""

import gc

gc.disable()  # while modules are imported, which leaves no garbage; `serve` enables it

import sys

from services.billing.app import create_app
from services.billing.database import MIGRATIONS
from services.billing.settings import BillingSettings
from services.common.db.engine import prepare_database_folder
from services.common.http.server import listen, serve
from services.common.settings import exit_with_error
from services.common.telemetry import open_tracing
from services.common.telemetry.logs import configure_logging

_ALLOCATIONS_PER_COLLECTION = 50_000
"""How often Python looks for garbage.

The objects of a batch all live until it is stored. With Python's default of 700, looking through
them takes a tenth of the time.
"""


def main(arguments: list[str]) -> None:
    """Run the command in the arguments.

    Raises:
        SystemExit: the command is unknown or cannot start; one line on stderr says why.
    """
    if arguments not in ([], ["migrate"]):
        exit_with_error("usage: python -m services.billing [migrate]")
    settings = BillingSettings.load()
    configure_logging("billing", level=settings.log_level, style=settings.log_format)
    url = settings.database_url.get_secret_value()
    prepare_database_folder(url, variable="BILLING_DATABASE_URL")
    if arguments:
        # Serving starts sooner without Alembic.
        from services.common.db.migrations import migrate_or_exit

        migrate_or_exit(url, MIGRATIONS, variable="BILLING_DATABASE_URL")
        return
    tracing = open_tracing("billing", endpoint=settings.otlp_endpoint)
    app = create_app(settings, tracing=tracing)
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    listener = listen(settings.host, settings.port, variable="BILLING_PORT")
    serve(
        app,
        listener,
        trusted_proxies=settings.trusted_proxies,
        trusted_hosts=settings.trusted_hosts,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
