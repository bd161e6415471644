"""Transactions of the billing service, retried when they lose a race."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from services.common.db.database import Database, is_retryable
from services.common.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"

_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.01
_DUPLICATE_KEY = 1062
_random = secrets.SystemRandom()

T = TypeVar("T")


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Store = Annotated[Database, Depends(_database)]
"""For endpoints that write, with `in_transaction`: a dependency could not be retried."""


async def in_transaction(database: Database, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in its own transaction; retry a few times if it lost a race.

    Two transactions may both insert a row they found missing, or deadlock on each other's locks.
    The loser starts over and then sees what the winner wrote.

    Raises:
        Unavailable: it lost every time, or the database is away.
    """
    for attempt in range(_ATTEMPTS):
        try:
            async with database.transaction() as session:
                return await work(session)
        except DBAPIError as error:
            if not _lost_a_race(error):
                raise
        await asyncio.sleep(_random.uniform(0, _FIRST_PAUSE_S * 2**attempt))
    raise Unavailable("The database is too busy right now.")


def _lost_a_race(error: DBAPIError) -> bool:
    arguments = error.orig.args if error.orig is not None else ()
    return is_retryable(error) or bool(arguments and arguments[0] == _DUPLICATE_KEY)
