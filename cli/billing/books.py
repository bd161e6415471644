"""The database that billing's commands work on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from cli.output import exit_with_error
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.errors import ServiceError


@asynccontextmanager
async def open_books(settings: BillingSettings, *, failure: str) -> AsyncIterator[Database]:
    """Open the database for a block.

    Exit with an error if the operation is refused or the database is unavailable.

    Args:
        failure: what could not be done then, such as `the recall failed`.
    """
    database = Database(settings.database_url.get_secret_value())
    try:
        yield database
    except ServiceError as error:
        exit_with_error(error.detail)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"BILLING_DATABASE_URL: {failure}: {cause}")
    finally:
        await database.close()
