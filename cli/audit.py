"""`tollgate audit`: verify the log of security events."""

import asyncio

import typer
from sqlalchemy.exc import SQLAlchemyError

from cli.options import AsJson
from cli.output import counted, exit_with_error, print_json
from services.auth.audit import service
from services.auth.audit.service import Verification
from services.auth.settings import AuthSettings
from services.common.db.database import Database
from services.common.errors import ServiceError


def verify(as_json: AsJson = False) -> None:
    """Recompute the hash of every entry; exit with 1 if an entry was changed or removed.

    The last hash covers all entries. Store it elsewhere: if an entry still has this hash later,
    nothing up to that entry was changed.
    """
    result = asyncio.run(_verify())
    if as_json:
        print_json(
            {
                "entries": result.entries,
                "last_hash": result.last_hash,
                "broken_at": result.broken_at,
            }
        )
    elif result.broken_at is None:
        typer.echo(f"{counted(result.entries, 'entry', 'entries')}, last hash {result.last_hash}")
    if result.broken_at is not None:
        exit_with_error(
            f"Entry {result.broken_at} does not continue the chain: it, or an entry before it, "
            f"was changed or removed. The last intact one is {result.entries}."
        )


async def _verify() -> Verification:
    """Chain pending entries and verify all; exit with an error if the database cannot be read."""
    database = Database(AuthSettings.load().database_url.get_secret_value())
    try:
        await service.seal(database)
        return await service.verify(database)
    except ServiceError as error:
        reason = error.detail
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error)
    finally:
        await database.close()
    exit_with_error(f"AUTH_DATABASE_URL: the audit log cannot be read: {reason}")
