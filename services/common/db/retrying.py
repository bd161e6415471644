"""Run a transaction again when it loses to another one."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from services.common.db.database import Database, LostRace
from services.common.errors import Unavailable

_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.01
"""The longest first pause; it doubles with each attempt."""
_DUPLICATE_KEY = 1062

T = TypeVar("T")


async def in_transaction(database: Database, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in its own transaction; retry a few times if it lost a race.

    Two transactions may both insert a row they found missing, or deadlock on each other's locks.
    The loser starts over and then sees what the winner wrote. It pauses for a random time first, so
    that the same transactions do not meet again.

    Raises:
        Unavailable: it lost every time, or the database is unavailable.
    """

    async def attempt() -> T:
        async with database.transaction() as session:
            return await work(session)

    retrying = AsyncRetrying(  # one per call: concurrent tasks must not share its state
        retry=retry_if_exception(_lost_a_race),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE_S),
        stop=stop_after_attempt(_ATTEMPTS),
    )
    try:
        return await retrying(attempt)
    except RetryError as error:
        raise Unavailable("The database is too busy right now.") from error


def _lost_a_race(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.args[:1] == (_DUPLICATE_KEY,)
    return isinstance(error, LostRace)
