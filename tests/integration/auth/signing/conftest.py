"""A database, a clock and signing keys for the tests of rotation."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from harness.databases import empty_tables
from services.auth.app import MIGRATIONS
from services.auth.keys import LoadedKey
from services.auth.models import Base
from services.auth.signing import service
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.auth.signing.replicas import Clock


@pytest.fixture(scope="module")
def pool() -> list[LoadedKey]:
    """Keys for all tests, because a key takes a tenth of a second."""
    return [LoadedKey(rsa.generate_private_key(65537, 2048)) for _ in range(10)]


@pytest.fixture(autouse=True)
def unused(pool: list[LoadedKey], monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedKey]:
    """The keys that this test has not used yet; the code gets them, too."""
    unused = itertools.cycle(pool)
    monkeypatch.setattr(service, "new_key", lambda: next(unused))
    return unused


@pytest.fixture(scope="module")
async def signing_url(database_kind: str, new_database_url: Callable[[str], str]) -> str:
    """A database of its own, because the running app has its keys in memory."""
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    return url


@pytest.fixture
async def database(signing_url: str) -> AsyncIterator[Database]:
    database = Database(signing_url)
    await empty_tables(database, Base.metadata)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()
