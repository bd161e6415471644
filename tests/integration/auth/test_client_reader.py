"""Clients are read together for all requests that wait."""

import asyncio

import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from harness.statements import noted_statements
from services.auth.clients import repository
from services.auth.clients.credentials import ensure_service_client
from services.auth.clients.reader import ClientReader
from services.auth.models import Client
from services.common.db.database import Database
from services.common.errors import Unavailable

IDS = ["first", "second", "third"]


@pytest.fixture
async def reader(database: Database) -> ClientReader:
    async with database.transaction() as session:
        for each in IDS:
            await ensure_service_client(
                session, client_id=each, client_secret=f"{each} secret", scope="billing:write"
            )
    return ClientReader(database)


async def test_requests_that_arrive_together_cost_one_statement(
    reader: ClientReader, app: FastAPI
) -> None:
    with noted_statements(app.state.database) as noted:
        found = await asyncio.gather(*(reader.read(each) for each in [*IDS, "other", *IDS, "ä"]))

    assert [client and client.client_id for client in found] == [*IDS, None, *IDS, None]
    assert len(noted) == 1


async def test_a_request_sees_what_was_committed_before_it(
    reader: ClientReader, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_clients, later = repository.read_clients, asyncio.Event()

    async def read_slowly(*arguments: object, **options: object) -> dict[str, Client]:
        found = await read_clients(*arguments, **options)  # type: ignore[arg-type]
        await later.wait()
        return found

    monkeypatch.setattr(repository, "read_clients", read_slowly)
    before = asyncio.create_task(reader.read("first"))
    await asyncio.sleep(0.05)
    async with database.transaction() as session:
        await session.execute(delete(Client))
    after = asyncio.create_task(reader.read("first"))
    await asyncio.sleep(0)
    later.set()

    assert await before is not None
    assert await after is None


async def test_a_request_that_is_cancelled_fails_no_other(reader: ClientReader) -> None:
    cancelled, kept = (asyncio.create_task(reader.read("first")) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()

    client = await kept
    assert client is not None
    assert client.client_id == "first"


@pytest.mark.any_database
async def test_each_request_learns_that_the_database_is_away() -> None:
    away = Database("mysql+aiomysql://nobody@127.0.0.1:1/none")
    reader = ClientReader(away)

    results = await asyncio.gather(*(reader.read(each) for each in IDS), return_exceptions=True)
    assert [type(each) for each in results] == [Unavailable] * 3
    with pytest.raises(Unavailable):  # and the next one tries again
        await reader.read("first")
    await away.close()
