"""The audit log: that its entries form one chain, and who may read it."""

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime

import pytest
import rfc8785
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit import repository, service
from services.auth.audit.service import OPERATOR, record, seal, verify
from services.auth.models import AuditEntry, User
from services.common.db.database import Database
from services.common.errors import Unavailable
from tests.integration.auth.conftest import Headers, OpenApp, SignIn, read_audit


async def add(database: Database, *names: str) -> None:
    async with database.transaction() as session:
        for name in names:
            await record(session, name, actor=OPERATOR)


async def sealed(database: Database) -> list[AuditEntry]:
    async with database.snapshot() as session:
        return list((await session.scalars(select(AuditEntry).order_by(AuditEntry.id))).all())


class TestChain:
    async def test_clients_can_recompute_every_hash(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, as_admin: Headers
    ) -> None:
        await sign_in(password="wrong password")

        entries = (await read_audit(client, as_admin))["entries"]

        previous = "0" * 64
        for entry in reversed(entries):
            assert set(entry) == {"id", "time", "actor", "action", "target", "address", "hash"}
            content = rfc8785.dumps({name: entry[name] for name in entry if name != "hash"})
            previous = hashlib.sha256(previous.encode() + content).hexdigest()
            assert entry["hash"] == previous
        assert [entry["id"] for entry in entries] == list(range(len(entries), 0, -1))
        assert entries[0]["action"] == "login_failed"

    @pytest.mark.costly
    async def test_many_acts_and_replicas_make_one_chain(
        self, app: FastAPI, database: Database, open_app: OpenApp
    ) -> None:
        async with open_app() as second:
            replicas = [app.state.database, second.state.database]

            async def act(number: int) -> None:
                replica = replicas[number % 2]
                await add(replica, f"act_{number}", f"act_{number}_too")
                await seal(replica)

            await asyncio.gather(*(act(number) for number in range(20)))

        entries = await sealed(database)
        assert [entry.id for entry in entries] == list(range(1, 41))
        assert set(Counter(entry.action for entry in entries).values()) == {1}
        assert (await verify(database)).broken_at is None

    async def test_an_act_that_is_rolled_back_is_not_recorded(self, database: Database) -> None:
        async def fail() -> None:
            async with database.transaction() as session:
                await record(session, "never_happened", actor=OPERATOR)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()

        await seal(database)

        assert await sealed(database) == []

    async def test_more_entries_than_a_batch_are_sealed_and_verified(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "BATCH", 3)
        await add(database, *(f"act_{number}" for number in range(10)))

        await seal(database)

        result = await verify(database)
        entries = await sealed(database)
        assert [entry.action for entry in entries] == [f"act_{number}" for number in range(10)]
        assert result == service.Verification(10, entries[-1].hash, None)

    async def test_sealing_ends_however_fast_entries_arrive(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_last, rounds = repository.find_last, 0

        async def find_last_while_one_arrives(session: AsyncSession) -> AuditEntry | None:
            nonlocal rounds
            rounds += 1
            await record(session, f"arrival_{rounds}", actor=OPERATOR)
            return await find_last(session)

        monkeypatch.setattr(repository, "find_last", find_last_while_one_arrives)
        await add(database, "act")

        last = await seal(database)

        assert last is not None
        assert last.action == "act"
        assert rounds <= 2  # the app seals in the background, too

    async def test_a_process_that_is_always_too_late_gives_up(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def lose(*_: object, **__: object) -> int:
            return 0

        monkeypatch.setattr(repository, "delete_pending", lose)
        await add(database, "act")

        with pytest.raises(Unavailable):
            await seal(database)

    async def test_an_act_does_not_wait_for_the_chain(self, database: Database) -> None:
        if database.engine.dialect.name == "sqlite":
            return  # SQLite has one writer at a time
        first = {"id": 1, "time": datetime.now(UTC), "action": "slow", "hash": "0" * 64}
        async with database.sessions() as sealing:  # rolls back
            await sealing.execute(insert(AuditEntry).values(first))
            await add(database, "meanwhile")  # commits while no other process can extend the chain

        await seal(database)
        assert [entry.action for entry in await sealed(database)] == ["meanwhile"]

    async def test_verify_names_the_first_entry_that_was_changed_or_removed(
        self, database: Database
    ) -> None:
        await add(database, *(f"act_{number}" for number in range(5)))
        await seal(database)
        intact = await verify(database)
        async with database.transaction() as session:
            await session.execute(update(AuditEntry).where(AuditEntry.id == 4).values(actor="eve"))
        changed = await verify(database)
        async with database.transaction() as session:
            await session.execute(delete(AuditEntry).where(AuditEntry.id == 2))
        removed = await verify(database)

        assert (intact.entries, intact.broken_at) == (5, None)
        assert (changed.entries, changed.broken_at) == (3, 4)
        assert (removed.entries, removed.broken_at) == (1, 3)


class TestReading:
    async def test_pages_follow_one_another_without_gaps(
        self, client: AsyncClient, database: Database, as_admin: Headers
    ) -> None:
        await add(database, *(f"act_{number}" for number in range(7)))
        seen: list[int] = []
        cursor: dict[str, str] = {}
        for _ in range(10):
            page = await read_audit(client, as_admin, limit=3, **cursor)
            seen += [entry["id"] for entry in page["entries"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}

        assert seen == list(range(len(seen), 0, -1))
        assert len(seen) >= 8

    async def test_only_administrators_may_read(
        self, client: AsyncClient, database: Database, as_ada: Headers, as_admin: Headers
    ) -> None:
        anonymous = await client.get("/audit")
        as_user = await client.get("/audit", headers=as_ada)
        async with database.transaction() as session:
            await session.execute(update(User).values(is_admin=False))
        demoted = await client.get("/audit", headers=as_admin)

        assert [anonymous.status_code, as_user.status_code, demoted.status_code] == [401, 403, 403]

    @pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 19, "٣", "1 OR 1=1"])
    async def test_an_invalid_cursor_is_rejected(
        self, client: AsyncClient, as_admin: Headers, cursor: str
    ) -> None:
        answer = await client.get("/audit", headers=as_admin, params={"cursor": cursor})

        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"loc": ["query", "cursor"], "msg": "Invalid cursor."}]
