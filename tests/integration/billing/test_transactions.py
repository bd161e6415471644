"""Transactions that lose a race start over; others fail at once."""

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import Unavailable

DUPLICATE_KEY = IntegrityError("INSERT", None, Exception(1062, "Duplicate entry"))
DEADLOCK = OperationalError("UPDATE", None, Exception(1213, "Deadlock found"))

NO_SAVEPOINT = OperationalError("ROLLBACK TO", None, Exception(1305, "SAVEPOINT does not exist"))


class Work:
    """Fails with each of some errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self, session: AsyncSession) -> int:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.attempts


async def test_a_transaction_that_lost_a_race_starts_over(database: Database) -> None:
    assert await in_transaction(database, Work(DUPLICATE_KEY, DEADLOCK, NO_SAVEPOINT)) == 4


async def test_one_that_always_loses_gives_up_and_can_be_repeated_later(
    database: Database,
) -> None:
    work = Work(*[DEADLOCK] * 100)

    with pytest.raises(Unavailable, match="too busy"):
        await in_transaction(database, work)

    assert work.attempts == 8


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), Unavailable("no"), IntegrityError("INSERT", None, Exception(1048, "null"))],
    ids=lambda error: type(error).__name__,
)
async def test_any_other_error_is_raised_at_once(database: Database, error: Exception) -> None:
    work = Work(error)

    with pytest.raises(type(error)):
        await in_transaction(database, work)

    assert work.attempts == 1
