"""Amounts of the version before, which keeps counting during and after the upgrade."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from harness.usage_events import ADA
from services.billing.database import MIGRATIONS
from services.billing.ledger.posting import post_missing
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.billing.money import (
    NOON,
    credit,
    granted,
    money,
    request,
    spent,
    store_prepaid,
    take,
)
from tests.integration.common.test_migrations import at_revision

pytestmark = pytest.mark.costly

MOST = 2**63 - 1
"""The largest amount that the version before could store."""
CREDIT = (
    "INSERT INTO credits (account, amount, currency, reason, `by`, created_at)"
    f" VALUES ('{ADA}', :amount, 'USD', 'A test.', 'a test', :now)"
)


class VersionBefore:
    """What the version before does with an account's money, in its own SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, amount: int) -> None:
        account = (
            "INSERT INTO accounts (id, currency, available, created_at)"
            f" VALUES ('{ADA}', 'USD', :amount, :now)"
        )
        await self._run((account, amount), (CREDIT, amount))

    async def credit(self, amount: int) -> None:
        more = f"UPDATE accounts SET available = available + :amount WHERE id = '{ADA}'"
        await self._run((more, amount), (CREDIT, amount))

    async def _run(self, *statements: tuple[str, int]) -> None:
        now = NOON.replace(tzinfo=None).isoformat(sep=" ")
        async with self._database.transaction() as session:
            for statement, amount in statements:
                given = {"amount": amount, "now": now}
                named = [name for name in given if f":{name}" in statement]
                await session.execute(text(statement), {name: given[name] for name in named})


@pytest.fixture
async def upgraded(
    database_kind: str, new_database_url: Callable[[str], str]
) -> AsyncIterator[tuple[Database, VersionBefore, str]]:
    """A database at the schema of the version before."""
    url = new_database_url(database_kind)
    with suppress(InvalidRequestError):  # on MySQL, where the newest columns are missing
        await asyncio.to_thread(at_revision, "billing", "0003", url)
    database = Database(url)
    yield database, VersionBefore(database), url
    await database.close()


async def test_amounts_stored_before_can_grow_beyond_64_bits(
    upgraded: tuple[Database, VersionBefore, str],
) -> None:
    database, before, url = upgraded
    await before.open(MOST)

    await asyncio.to_thread(migrate, url, MIGRATIONS)
    await store_prepaid(database)
    await credit(database, MOST)
    await credit(database, 7)

    assert await money(database) == (2 * MOST + 7, 0)
    assert await granted(database, request(1, minimum=2 * MOST)) == ("ok", 2 * MOST)
    await take(database, [spent(5, 1)])
    assert await money(database) == (7, 2 * MOST - 5)
    assert await verify(database) == []


async def test_the_version_before_can_run_beside_the_new_one(
    upgraded: tuple[Database, VersionBefore, str],
) -> None:
    database, before, url = upgraded
    await before.open(100)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    await store_prepaid(database)

    for amount in (MOST // 2, 1, 2, 3):
        await before.credit(amount)
        await credit(database, amount)
        await take(database, [spent(1)])

    assert await money(database) == (100 + 2 * (MOST // 2 + 6) - 4, 0)
    assert await _post_missing(database) == 1
    assert await _post_missing(database) == 0
    assert await verify(database) == []


async def _post_missing(database: Database) -> int:
    async with database.transaction() as session:
        return await post_missing(session, now=NOON)
