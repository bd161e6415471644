"""Password guessing: a user gets ten failures from one address within five minutes."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import event, select, update

from services.auth.models import KnownAddress, LoginFailures, User
from services.auth.passwords import MEMORY_KIB
from services.auth.tokens import guesses
from services.auth.tokens.attempts import KNOWN_FOR, login_keys
from services.auth.tokens.service import delete_expired
from services.common.db.database import Database
from tests.integration.auth.conftest import PASSWORD, OpenApp, SignIn, browse

ADA = "ada@example.com"
OWNER = "203.0.113.1"
STRANGER = "198.51.100.7"


def form(username: str, password: str) -> dict[str, str]:
    return {"grant_type": "password", "username": username, "password": password}


async def fail(sign_in: SignIn, *, times: int, username: str = "ada@example.com") -> list[int]:
    answers = [await sign_in(username, "wrong password") for _ in range(times)]
    return [answer.status_code for answer in answers]


async def end_window(database: Database) -> None:
    async with database.transaction() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await session.execute(update(LoginFailures).values(window_ends_at=past))


async def test_after_ten_failures_even_the_right_password_is_refused(
    ada: dict[str, str], sign_in: SignIn
) -> None:
    assert await fail(sign_in, times=11) == [400] * 10 + [429]

    answer = await sign_in()

    assert answer.status_code == 429
    assert answer.json()["error"] == "too_many_attempts"
    assert 0 < int(answer.headers["Retry-After"]) <= 300


async def test_all_spellings_count_together(ada: dict[str, str], sign_in: SignIn) -> None:
    for username in ("ada@example.com", " ADA@example.com", "ａda@example.com") * 4:
        await fail(sign_in, times=1, username=username)

    assert (await sign_in()).status_code == 429


async def test_an_unknown_email_is_locked_in_the_same_way(
    ada: dict[str, str], sign_in: SignIn, database: Database
) -> None:
    assert await fail(sign_in, times=11, username="nobody@example.com") == [400] * 10 + [429]

    async with database.snapshot() as session:
        stored = (await session.scalars(select(LoginFailures))).all()
    assert len(stored) == 3
    assert all(len(each.key_sha256) == 64 for each in stored)


async def test_other_users_are_not_affected(ada: dict[str, str], sign_in: SignIn) -> None:
    await fail(sign_in, times=11, username="bob@example.com")

    assert (await sign_in()).status_code == 200


async def test_the_lock_ends_with_its_window(
    ada: dict[str, str], sign_in: SignIn, database: Database
) -> None:
    await fail(sign_in, times=11)
    await end_window(database)

    assert await fail(sign_in, times=1) == [400]
    assert (await sign_in()).status_code == 200


async def test_success_resets_the_failures(ada: dict[str, str], sign_in: SignIn) -> None:
    await fail(sign_in, times=9)
    assert (await sign_in()).status_code == 200

    assert await fail(sign_in, times=10) == [400] * 10


async def test_failures_count_across_replicas(
    ada: dict[str, str], app: FastAPI, open_app: OpenApp
) -> None:
    form = {"grant_type": "password", "username": "ada@example.com"}
    async with (
        open_app() as second_app,
        browse(app) as first,
        browse(second_app) as second,
    ):
        guesses = [
            replica.post("/token", data=form | {"password": f"guess {n}"})
            for n in range(20)
            for replica in (first, second)
        ]
        answers = await asyncio.gather(*guesses)
        right = await second.post("/token", data=form | {"password": PASSWORD})

    assert Counter(answer.status_code for answer in answers) == {400: 10, 429: 30}
    assert right.status_code == 429


@pytest.mark.any_database
async def test_results_are_counted_for_the_operator(
    ada: dict[str, str], app: FastAPI, open_app: OpenApp
) -> None:
    async with open_app(login_attempts=1) as strict, browse(strict) as client:
        before = (await client.get("/metrics")).text
        for password in (PASSWORD, "guess", PASSWORD):
            await client.post("/token", data=form(ADA, password))
        exposed = (await client.get("/metrics")).text

    for result in ("succeeded", "failed", "refused"):
        assert f'tollgate_auth_logins_total{{result="{result}"}} 0.0' in before
        assert f'tollgate_auth_logins_total{{result="{result}"}} 1.0' in exposed


async def test_many_successful_logins_at_once_are_allowed(
    ada: dict[str, str], sign_in: SignIn
) -> None:
    answers = await asyncio.gather(*(sign_in() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}


async def test_closed_windows_are_deleted(
    ada: dict[str, str], sign_in: SignIn, database: Database
) -> None:
    await fail(sign_in, times=1)
    await end_window(database)
    await fail(sign_in, times=1, username="bob@example.com")

    await delete_expired(database)

    async with database.snapshot() as session:
        remaining = (await session.scalars(select(LoginFailures.failures))).all()
    assert sorted(remaining) == [1, 1, 1]  # the user, the pair, and the address of both users


@pytest.mark.any_database
class TestGrowingWaits:
    """With two failures allowed in five minutes."""

    async def wait_after_lock(self, client: AsyncClient, username: str = ADA) -> int:
        """Fail twice and return the `Retry-After` of the next sign-in."""
        for _ in range(2):
            answer = await client.post("/token", data=form(username, "wrong password"))
            assert answer.status_code == 400
        answer = await client.post("/token", data=form(username, PASSWORD))
        assert answer.status_code == 429
        return int(answer.headers["Retry-After"])

    @pytest.mark.costly
    async def test_each_lock_in_a_row_doubles_the_wait_up_to_an_hour(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        waits = []
        async with open_app(login_attempts=2) as strict, browse(strict) as client:
            for _ in range(6):
                waits.append(await self.wait_after_lock(client))
                await end_window(database)

        for wait, longest in zip(waits, (300, 600, 1200, 2400, 3600, 3600), strict=True):
            assert longest / 2 < wait <= longest

    async def test_unknown_emails_wait_just_as_long(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        waits = []
        async with open_app(login_attempts=2) as strict, browse(strict) as client:
            for _ in range(3):
                waits.append(await self.wait_after_lock(client, "nobody@example.com"))
                await end_window(database)

        assert 600 < waits[2] <= 1200

    @pytest.mark.costly
    async def test_a_window_without_a_lock_or_a_sign_in_starts_over(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(login_attempts=2) as strict, browse(strict) as client:
            for _ in range(2):
                await self.wait_after_lock(client)
                await end_window(database)
            await client.post("/token", data=form(ADA, "wrong password"))
            await end_window(database)
            after_a_calm_window = await self.wait_after_lock(client)
            await end_window(database)
            await client.post("/token", data=form(ADA, PASSWORD))
            after_a_sign_in = await self.wait_after_lock(client)

        assert after_a_calm_window <= 300
        assert after_a_sign_in <= 300

    @pytest.mark.costly
    async def test_strangers_cannot_make_the_windows_of_a_user_grow(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        waits = []
        async with open_app(login_attempts=1) as strict:
            for round_ in range(3):
                for host in range(10):
                    address = f"198.51.{round_}.{host}"
                    async with browse(strict, address=address) as stranger:
                        await stranger.post("/token", data=form(ADA, "guess"))
                async with browse(strict, address=f"203.0.113.{round_}") as new_device:
                    answer = await new_device.post("/token", data=form(ADA, PASSWORD))
                waits.append(int(answer.headers["Retry-After"]))
                await end_window(database)

        assert max(waits) <= 300

    async def test_locks_are_forgotten_after_a_day(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(login_attempts=2) as strict, browse(strict) as client:
            await self.wait_after_lock(client)
        await end_window(database)
        await delete_expired(database)
        async with database.snapshot() as session:
            soon = len((await session.scalars(select(LoginFailures))).all())
        async with database.transaction() as session:
            past = datetime.now(UTC) - timedelta(days=1, seconds=1)
            await session.execute(update(LoginFailures).values(window_ends_at=past))
        await delete_expired(database)

        async with database.snapshot() as session:
            later = len((await session.scalars(select(LoginFailures))).all())
        assert (soon, later) == (1, 0)


class TestAttackers:
    """Others fail to sign in, each from their own address, while Ada signs in."""

    async def guess(self, app: FastAPI, address: str, *, times: int, user: str = ADA) -> list[int]:
        async with browse(app, address=address) as stranger:
            return [
                (await stranger.post("/token", data=form(user, f"guess {n}"))).status_code
                for n in range(times)
            ]

    async def sign_in_from(self, app: FastAPI, address: str, *, password: str = PASSWORD) -> int:
        async with browse(app, address=address) as client:
            return (await client.post("/token", data=form(ADA, password))).status_code

    async def test_a_locked_attacker_locks_out_no_other_user(
        self, ada: dict[str, str], app: FastAPI
    ) -> None:
        assert await self.guess(app, STRANGER, times=12) == [400] * 10 + [429] * 2

        assert await self.sign_in_from(app, STRANGER) == 429
        assert await self.sign_in_from(app, OWNER) == 200

    async def test_an_administrator_is_not_locked_out_by_attackers(
        self, ada: dict[str, str], app: FastAPI, database: Database
    ) -> None:
        async with database.transaction() as session:
            await session.execute(update(User).values(is_admin=True))
        await self.guess(app, STRANGER, times=11)

        assert await self.sign_in_from(app, OWNER) == 200

    @pytest.mark.costly
    async def test_many_attackers_lock_unknown_addresses_but_not_the_users_own(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp
    ) -> None:
        assert await self.sign_in_from(app, OWNER) == 200
        async with open_app(login_attempts=1) as strict:
            guesses = [
                await self.guess(strict, f"198.51.100.{host}", times=1) for host in range(12)
            ]

            from_elsewhere = await self.sign_in_from(strict, "203.0.113.99")
            from_home = await self.sign_in_from(strict, OWNER)

        assert guesses == [[400]] * 10 + [[429]] * 2
        assert (from_elsewhere, from_home) == (429, 200)

    async def test_a_known_address_is_limited_to_ten_failures(
        self, ada: dict[str, str], app: FastAPI
    ) -> None:
        assert await self.sign_in_from(app, OWNER) == 200

        assert await self.guess(app, OWNER, times=11) == [400] * 10 + [429]
        assert await self.sign_in_from(app, OWNER) == 429

    @pytest.mark.costly
    async def test_a_known_address_is_forgotten_after_a_while(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp, database: Database
    ) -> None:
        assert await self.sign_in_from(app, OWNER) == 200
        async with database.transaction() as session:
            past = datetime.now(UTC) - KNOWN_FOR - timedelta(days=1)
            await session.execute(update(KnownAddress).values(last_login_at=past))
        async with open_app(login_attempts=1) as strict:
            for host in range(10):
                await self.guess(strict, f"198.51.100.{host}", times=1)

            assert await self.sign_in_from(strict, OWNER) == 429
        await delete_expired(database)
        async with database.snapshot() as session:
            assert (await session.scalars(select(KnownAddress))).all() == []

    async def test_the_number_of_known_addresses_is_limited(
        self, ada: dict[str, str], app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guesses, "MAX_KNOWN", 2)
        for host in range(1, 5):
            await self.sign_in_from(app, f"203.0.113.{host}")

        async with database.snapshot() as session:
            known = set((await session.scalars(select(KnownAddress.pair_sha256))).all())
        assert known == {login_keys(ADA, client=f"203.0.113.{host}").pair for host in (3, 4)}

    @pytest.mark.costly
    async def test_trying_one_password_on_many_users_is_refused(
        self, ada: dict[str, str], open_app: OpenApp
    ) -> None:
        async with open_app(login_attempts=1) as strict:
            sprayed = [
                (await self.guess(strict, STRANGER, times=1, user=f"user{n}@example.com"))[0]
                for n in range(32)
            ]

            assert sprayed == [400] * 30 + [429] * 2
            assert await self.sign_in_from(strict, STRANGER) == 429
            assert await self.sign_in_from(strict, OWNER) == 200

    async def test_hosts_in_one_ipv6_network_count_together(
        self, ada: dict[str, str], app: FastAPI
    ) -> None:
        guesses = [(await self.guess(app, f"2001:db8::{n:x}", times=1))[0] for n in range(1, 13)]

        assert guesses == [400] * 10 + [429] * 2

    @pytest.mark.costly
    async def test_concurrent_guesses_in_several_processes_are_all_counted(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp
    ) -> None:
        async with (
            open_app(login_attempts=1) as first,
            open_app(login_attempts=1) as second,
            AsyncExitStack() as stack,
        ):
            strangers = [
                await stack.enter_async_context(browse(replica, address=f"{network}.{host}"))
                for host in range(12)
                for network, replica in (("198.51.100", first), ("192.0.2", second))
            ]
            answers = await asyncio.gather(
                *(stranger.post("/token", data=form(ADA, "guess")) for stranger in strangers)
            )

        assert Counter(answer.status_code for answer in answers) == {400: 10, 429: 14}


@pytest.mark.costly
async def test_a_burst_is_refused_without_using_the_database_and_probes_still_work(
    ada: dict[str, str], open_app: OpenApp
) -> None:
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    narrow = open_app(password_threads=1, password_queue=3, password_memory_kib=MEMORY_KIB)
    async with narrow as app, browse(app) as client:
        transactions: list[object] = []
        for engine in app.state.database.engines:
            event.listen(engine.sync_engine, "begin", transactions.append)
        burst = asyncio.gather(*(client.post("/token", data=form) for _ in range(40)))
        probe = await client.get("/readyz")
        statuses = Counter(answer.status_code for answer in await burst)

    assert probe.status_code == 200
    assert statuses[503] > 0
    assert statuses[200] + statuses[503] == 40
    assert len(transactions) == 2 * statuses[200] + 1
