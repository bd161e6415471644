"""Credits and balances: prepaid money is added once, exact to the last 10⁻⁹."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient, Response
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from harness.issuer import Headers
from harness.plans import plan
from harness.usage_events import ADA, BOB, assign_plan, deliver, event
from services.billing.idempotency import ABANDONED_AFTER, CallKey, StillRunning, run_once
from services.billing.ledger.accounts import find_currencies, fix_currencies
from services.billing.ledger.credits import read_balance
from services.billing.models import Credit
from services.common.db.database import Database
from tests.integration.billing.money import NOON, lease, request

BODY = {"amount": "25.000000001", "currency": "USD", "reason": "Trial – welcome 🍷"}


async def add(
    client: AsyncClient, admin: Headers, *, key: str = "k", account: str = ADA, **members: Any
) -> Response:
    return await client.post(
        f"/accounts/{account}/credits",
        headers=admin | {"Idempotency-Key": key},
        json=BODY | members,
    )


async def entries(database: Database) -> int:
    async with database.snapshot() as session:
        return await session.scalar(select(func.count()).select_from(Credit)) or 0


@pytest.mark.any_database
class TestAdd:
    async def test_a_credit_adds_to_the_balance(
        self, client: AsyncClient, admin: Headers, ada: Headers
    ) -> None:
        first = await add(client, admin, key="1")
        second = await add(client, admin, key="2", amount="0.999999999")

        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json()["balance"] == "25.000000001"
        assert second.json() == {
            "id": first.json()["id"] + 1,
            "amount": "0.999999999",
            "balance": "26",
        }
        assert (await client.get("/balance", headers=ada)).json() == {
            "account": ADA,
            "currency": "USD",
            "balance": "26",
            "held": "0",
            "available": "26",
        }

    async def test_the_ledger_records_who_and_why(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        await add(client, admin)

        async with database.snapshot() as session:
            (entry,) = await session.scalars(select(Credit))
        assert (entry.account, entry.amount) == (ADA, 25_000_000_001)
        assert (entry.reason, entry.by[-2:]) == (BODY["reason"], "ad")

    @pytest.mark.parametrize(
        "members",
        [
            {"amount": "0"},
            {"amount": "-1"},
            {"amount": 1},
            {"amount": "1e3"},
            {"amount": "0.0000000001"},
            {"amount": "1000000000000.000000001"},
            {"amount": "9" * 100},
            {"currency": "usd"},
            {"reason": ""},
            {"reason": "x" * 501},
            {"surprise": 1},
        ],
    )
    async def test_an_invalid_credit_is_422(
        self, client: AsyncClient, admin: Headers, members: dict[str, Any]
    ) -> None:
        assert (await add(client, admin, **members)).status_code == 422

    async def test_a_credit_that_is_too_large_is_422_with_the_limit(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        largest = await add(client, admin, key="1", amount="1000000000000")
        larger = await add(client, admin, key="2", amount="1000000000001")

        assert largest.status_code == 201
        assert larger.status_code == 422
        (error,) = larger.json()["errors"]
        assert error["loc"] == ["body", "amount"]
        assert error["msg"].endswith("must be at most 1000000000000")

    async def test_only_administrators_may_add_credit(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        path = f"/accounts/{ADA}/credits"

        assert (await client.post(path, content=b"{")).status_code == 401
        assert (await client.post(path, headers=ada, content=b"{")).status_code == 403


class TestCurrency:
    async def test_the_first_credit_fixes_it(
        self, client: AsyncClient, admin: Headers, service: Headers
    ) -> None:
        await add(client, admin, key="1", currency="EUR")

        other = await add(client, admin, key="2")
        stored = await client.post("/plans", headers=admin, json=plan())
        put = await client.put(
            f"/accounts/{ADA}/plan", headers=admin, json={"plan": stored.json()["id"]}
        )
        result = await deliver(client, service, [event()])

        assert (other.status_code, put.status_code) == (409, 409)
        assert other.json()["type"] == "urn:tollgate:problem:currency_fixed"
        assert len(result["rejected"]) == 1

    async def test_the_first_charge_fixes_it(
        self, client: AsyncClient, admin: Headers, service: Headers
    ) -> None:
        await deliver(client, service, [event()])

        assert (await add(client, admin, currency="EUR")).status_code == 409
        assert (await add(client, admin, currency="USD", key="other")).status_code == 201


class TestIdempotency:
    async def test_a_repeat_gets_the_first_response_and_counts_once(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        first = await add(client, admin)
        await add(client, admin, key="between")

        again = await add(client, admin)

        assert (again.status_code, again.json()) == (201, first.json())
        assert await entries(database) == 2

    @pytest.mark.parametrize("key", [None, "", "x" * 256, "é", "tab\there"])
    async def test_a_missing_or_invalid_key_is_400(
        self, client: AsyncClient, admin: Headers, database: Database, key: str | None
    ) -> None:
        given = {} if key is None else {"Idempotency-Key": key.encode()}
        headers = [*admin.items(), *given.items()]

        answer = await client.post(f"/accounts/{ADA}/credits", headers=headers, json=BODY)  # type: ignore[arg-type]

        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:tollgate:problem:idempotency_key_missing"
        assert await entries(database) == 0

    async def test_the_key_with_another_body_is_422(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        await add(client, admin)

        answer = await add(client, admin, amount="1")

        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:tollgate:problem:idempotency_key_reused"
        assert await entries(database) == 1

    async def test_keys_are_separate_per_account_and_caller(
        self, client: AsyncClient, admin: Headers, database: Database, issuer: Any
    ) -> None:
        second = issuer.headers("admin", account=BOB)

        answers = [
            await add(client, admin),
            await add(client, admin, account=BOB),
            await add(client, second),
        ]

        assert [answer.status_code for answer in answers] == [201] * 3
        assert await entries(database) == 3

    async def test_of_many_concurrent_calls_one_counts(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        answers = await asyncio.gather(*(add(client, admin) for _ in range(12)))

        made = [answer.json() for answer in answers if answer.status_code == 201]
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert made
        assert all(each == made[0] for each in made)
        assert await entries(database) == 1

    async def test_a_failed_call_may_be_retried(self, client: AsyncClient, admin: Headers) -> None:
        await add(client, admin, key="1", currency="EUR")
        refused = await add(client, admin, key="2")

        again = await add(client, admin, key="2", currency="EUR")

        assert (refused.status_code, again.status_code) == (409, 201)


class Said(BaseModel):
    word: str


class Slow(Database):
    """A database whose process pauses after its first transaction while something happens."""

    def __init__(self, url: str, *, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(url)
        self._meanwhile = meanwhile
        self._begun = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        self._begun += 1
        if self._begun == 2:
            await self._meanwhile()
        async with super().transaction() as session:
            yield session


class TestOnce:
    CALL = CallKey("a caller", "a key", "/a/path")

    async def call(self, database: Database, work: Any, *, now: datetime) -> Said:
        return await run_once(
            database, call=self.CALL, body=Said(word="?"), response=Said, work=work, now=now
        )

    async def test_while_the_first_call_runs_a_second_is_refused(self, database: Database) -> None:
        now = datetime.now(UTC)

        async def work(session: AsyncSession) -> Said:
            return Said(word="done")

        async def die(session: AsyncSession) -> Said:
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            await self.call(database, die, now=now)
        with pytest.raises(StillRunning):
            await self.call(database, work, now=now + ABANDONED_AFTER - timedelta(seconds=1))
        late = await self.call(database, work, now=now + ABANDONED_AFTER)

        assert late == Said(word="done")
        assert await self.call(database, die, now=now) == Said(word="done")

    async def test_a_call_that_another_took_over_does_nothing(
        self, database: Database, database_url: str
    ) -> None:
        now, turns = datetime.now(UTC), []

        async def work(session: AsyncSession) -> Said:
            turns.append("work")
            return Said(word="done")

        async def take_over() -> None:
            await self.call(database, work, now=now + ABANDONED_AFTER)

        slow = Slow(database_url, meanwhile=take_over)
        with pytest.raises(StillRunning):
            await self.call(slow, work, now=now)
        await slow.close()

        assert turns == ["work"]
        assert await self.call(database, work, now=now) == Said(word="done")


class TestBalance:
    async def test_an_unknown_account_has_zero_in_its_plans_currency(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        answer = await client.get("/balance", headers=ada)

        assert answer.json() == {
            "account": ADA,
            "currency": "USD",
            "balance": "0",
            "held": "0",
            "available": "0",
        }

    async def test_credit_reserved_by_a_process_is_not_available(
        self, client: AsyncClient, admin: Headers, ada: Headers, service: Headers
    ) -> None:
        await add(client, admin, amount="10")
        await assign_plan(client, admin, plan(billing="prepaid"))
        lease = {"account": ADA, "journal": BOB, "sequence": 1, "minimum": "4"}
        await client.post("/leases", headers=service, json=[lease])

        read = (await client.get("/balance", headers=ada)).json()

        assert (read["balance"], read["held"], read["available"]) == ("10", "4", "6")

    async def test_postpaid_charges_do_not_change_it(
        self, client: AsyncClient, admin: Headers, ada: Headers, service: Headers
    ) -> None:
        await add(client, admin, amount="10")
        await deliver(client, service, [event(sequence=1), event()])

        assert (await client.get("/balance", headers=ada)).json()["available"] == "10"

    async def test_prepaid_charges_reduce_it(
        self, client: AsyncClient, admin: Headers, ada: Headers, service: Headers
    ) -> None:
        await add(client, admin, amount="10")
        await assign_plan(client, admin, plan(billing="prepaid"))

        await deliver(client, service, [event(rows=4), event(rows=5, sequence=1)])

        assert (await client.get("/balance", headers=ada)).json()["balance"] == "9.9981"

    async def test_another_accounts_balance_is_for_administrators(
        self, client: AsyncClient, admin: Headers, ada: Headers, service: Headers
    ) -> None:
        await add(client, admin, account=BOB)
        of_bob = {"account": BOB}

        assert (await client.get("/balance")).status_code == 401
        assert (await client.get("/balance", headers=service)).status_code == 403
        assert (await client.get("/balance", headers=ada, params=of_bob)).status_code == 403
        read = await client.get("/balance", headers=admin, params=of_bob)
        assert (read.json()["account"], read.json()["balance"]) == (BOB, "25.000000001")


@pytest.mark.costly
async def test_a_balance_read_while_money_moves_is_consistent(prepaid: Database) -> None:
    async def move() -> None:
        for number in range(1, 60):
            release = request(number, release=True)
            await lease(prepaid, release if number % 2 else request(number, minimum=60, desired=60))

    async def read() -> set[str]:
        seen = set()
        while not moving.done():
            async with prepaid.snapshot() as session:
                balance = await read_balance(session, account=ADA, default_plan=None, now=NOON)
            seen.add(balance.balance)
        return seen

    moving = asyncio.create_task(move())
    seen = await asyncio.gather(read(), read())
    await moving

    assert set.union(*seen) == {"0.0000001"}


async def test_a_currency_fixed_meanwhile_is_not_overlooked(prepaid: Database) -> None:
    async with prepaid.transaction() as session:
        others = await fix_currencies(session, currencies={ADA: "EUR", BOB: "EUR"}, now=NOON)

    async with prepaid.snapshot() as session:
        fixed = await find_currencies(session, accounts=[ADA, BOB])
    assert others == {ADA}
    assert fixed == {ADA: "USD", BOB: "EUR"}
