"""Guessing: ten failures for an e-mail within five minutes, and it is locked for all."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI
from sqlalchemy import event, select, update

from services.auth.models import LoginFailures
from services.auth.tokens.service import forget_expired
from services.common.db import Database
from tests.auth.conftest import PASSWORD, LogIn, OpenApp, browse


async def fail(log_in: LogIn, *, times: int, username: str = "ada@example.com") -> list[int]:
    answers = [await log_in(username, "wrong password") for _ in range(times)]
    return [answer.status_code for answer in answers]


async def end_window(database: Database) -> None:
    async with database.transaction() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await session.execute(update(LoginFailures).values(window_ends_at=past))


async def test_after_ten_failures_not_even_the_right_password_is_taken(
    ada: dict[str, str], log_in: LogIn
) -> None:
    assert await fail(log_in, times=11) == [400] * 10 + [429]

    answer = await log_in()

    assert answer.status_code == 429
    assert answer.json()["error"] == "too_many_attempts"
    assert 0 < int(answer.headers["Retry-After"]) <= 300


async def test_every_spelling_counts_as_one(ada: dict[str, str], log_in: LogIn) -> None:
    for username in ("ada@example.com", " ADA@example.com", "ａda@example.com") * 4:
        await fail(log_in, times=1, username=username)

    assert (await log_in()).status_code == 429


async def test_an_unknown_email_is_locked_alike(
    ada: dict[str, str], log_in: LogIn, database: Database
) -> None:
    assert await fail(log_in, times=11, username="nobody@example.com") == [400] * 10 + [429]

    async with database.snapshot() as session:
        stored = (await session.scalars(select(LoginFailures))).one()
    assert "nobody" not in stored.email_sha256


async def test_other_accounts_are_not_touched(ada: dict[str, str], log_in: LogIn) -> None:
    await fail(log_in, times=11, username="bob@example.com")

    assert (await log_in()).status_code == 200


async def test_the_lock_ends_with_its_window(
    ada: dict[str, str], log_in: LogIn, database: Database
) -> None:
    await fail(log_in, times=11)
    await end_window(database)

    assert await fail(log_in, times=1) == [400]
    assert (await log_in()).status_code == 200


async def test_failures_are_forgotten_on_success(ada: dict[str, str], log_in: LogIn) -> None:
    await fail(log_in, times=9)
    assert (await log_in()).status_code == 200

    assert await fail(log_in, times=10) == [400] * 10


async def test_it_counts_over_all_replicas(
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


async def test_many_right_logins_at_once_are_no_attack(ada: dict[str, str], log_in: LogIn) -> None:
    answers = await asyncio.gather(*(log_in() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}


async def test_closed_windows_are_swept_away(
    ada: dict[str, str], log_in: LogIn, database: Database
) -> None:
    await fail(log_in, times=1)
    await end_window(database)
    await fail(log_in, times=1, username="bob@example.com")

    await forget_expired(database)

    async with database.snapshot() as session:
        assert len((await session.scalars(select(LoginFailures))).all()) == 1


async def test_a_burst_is_refused_before_it_touches_the_database_and_probes_go_on(
    ada: dict[str, str], open_app: OpenApp
) -> None:
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    async with open_app(password_threads=1, password_queue=3) as app, browse(app) as client:
        begun: list[object] = []
        event.listen(app.state.database.engine.sync_engine, "begin", begun.append)
        burst = asyncio.gather(*(client.post("/token", data=form) for _ in range(40)))
        probe = await client.get("/readyz")
        statuses = Counter(answer.status_code for answer in await burst)

    assert probe.status_code == 200
    assert statuses[503] > 0
    assert statuses[200] + statuses[503] == 40
    assert len(begun) == 2 * statuses[200] + 1
