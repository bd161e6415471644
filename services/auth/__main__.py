"""`python -m services.auth` serves; `python -m services.auth migrate` migrates and exits."""

import os
import sys
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from services.auth.app import MIGRATIONS, create_app
from services.auth.settings import AuthSettings
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
        stop("usage: python -m services.auth [migrate]")
    settings = AuthSettings.load()
    configure_logging("auth", level=settings.log_level)
    _prepare_database_folder(settings)
    if arguments:
        _migrate(settings)
        return
    app = create_app(settings)
    serve(app, listen(settings.host, settings.port, variable="AUTH_PORT"))


def _prepare_database_folder(settings: AuthSettings) -> None:
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database:
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            stop(f"AUTH_DATABASE_URL: {folder}: {error.strerror}")
        if not os.access(folder, os.W_OK):
            stop(f"AUTH_DATABASE_URL: {folder} cannot be written")


def _migrate(settings: AuthSettings) -> None:
    try:
        migrate(settings.database_url.get_secret_value(), MIGRATIONS)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        stop(f"AUTH_DATABASE_URL: the database cannot be migrated: {cause}")


if __name__ == "__main__":
    main(sys.argv[1:])
