"""`python -m services.billing` serves; `python -m services.billing migrate` migrates and exits."""

import sys
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from services.billing.app import create_app
from services.billing.database import MIGRATIONS
from services.billing.settings import BillingSettings
from services.common.db import migrate
from services.common.http import listen, serve
from services.common.observe import configure_logging
from services.common.settings import stop


def main(arguments: list[str]) -> None:
    """Run the command the arguments name.

    Raises:
        SystemExit: it was called wrongly, or cannot begin; one line on stderr says why.
    """
    if arguments not in ([], ["migrate"]):
        stop("usage: python -m services.billing [migrate]")
    settings = BillingSettings.load()
    configure_logging("billing", level=settings.log_level)
    _prepare_database_folder(settings)
    if arguments:
        _migrate(settings)
        return
    app = create_app(settings)
    serve(app, listen(settings.host, settings.port, variable="BILLING_PORT"))


def _prepare_database_folder(settings: BillingSettings) -> None:
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database:
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            stop(f"BILLING_DATABASE_URL: {url.database}: {error.strerror}")


def _migrate(settings: BillingSettings) -> None:
    try:
        migrate(settings.database_url.get_secret_value(), MIGRATIONS)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        stop(f"BILLING_DATABASE_URL: the database cannot be migrated: {cause}")


if __name__ == "__main__":
    main(sys.argv[1:])
