"""`python -m services.auth` serves; `python -m services.auth migrate` migrates and exits.

`migrate` also creates or updates the administrator and the service client from the settings.
"""

import gc

gc.disable()  # while modules are imported, which leaves no garbage; `serve` enables it

import sys

from services.auth.app import MIGRATIONS, create_app
from services.auth.bootstrap import create_first_users
from services.auth.settings import AuthSettings
from services.auth.signing.vault import check_passphrase
from services.common.db.engine import prepare_database_folder
from services.common.http.server import listen, serve
from services.common.settings import exit_with_error
from services.common.telemetry import open_tracing
from services.common.telemetry.logs import configure_logging


def main(arguments: list[str]) -> None:
    """Run the command given by the arguments.

    Raises:
        SystemExit: wrong usage, or the service cannot start; one line on stderr says why.
    """
    if arguments not in ([], ["migrate"]):
        exit_with_error("usage: python -m services.auth [migrate]")
    settings = AuthSettings.load()
    configure_logging("auth", level=settings.log_level, style=settings.log_format)
    url = settings.database_url.get_secret_value()
    prepare_database_folder(url, variable="AUTH_DATABASE_URL")
    if arguments:
        # Serving starts sooner without Alembic.
        from services.common.db.migrations import migrate_or_exit

        migrate_or_exit(url, MIGRATIONS, variable="AUTH_DATABASE_URL")
        create_first_users(settings)
        return
    tracing = open_tracing("auth", endpoint=settings.otlp_endpoint)
    app = create_app(settings, tracing=tracing)
    check_passphrase(url, settings.passphrases)
    listener = listen(settings.host, settings.port, variable="AUTH_PORT")
    serve(
        app,
        listener,
        trusted_proxies=settings.trusted_proxies,
        trusted_hosts=settings.trusted_hosts,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
