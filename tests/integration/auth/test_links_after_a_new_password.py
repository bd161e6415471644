"""A new password cancels what an intruder may have requested by mail before."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from harness.waiting import eventually_async
from services.auth.mail import repository
from services.auth.mail.delivery import deliver_due
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import OneTimeLink, QueuedMail
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    OpenApp,
    SignIn,
    browse,
    count,
    mails_in,
    next_mail,
    token_in,
)
from tests.integration.auth.test_passwords import change, confirm_reset, request_reset

EVIL = "evil@example.net"


@pytest.mark.costly
@pytest.mark.parametrize("how", ["changed", "reset"])
async def test_an_email_that_was_requested_before_can_no_longer_be_verified(
    app: FastAPI, client: AsyncClient, as_ada: Headers, open_app: OpenApp, sign_in: SignIn, how: str
) -> None:
    async with open_app(registration="verify") as verifying, browse(verifying) as intruder:
        await intruder.patch("/users/me", json={"email": EVIL}, headers=as_ada)
        stolen = token_in(await next_mail(verifying, to=EVIL, subject="Confirm"))
    if how == "changed":
        assert (await change(client, as_ada)).status_code == 204
    else:
        await confirm_reset(client, await request_reset(app, client))

    answer = await client.post("/verify-email", json={"token": stolen})

    assert answer.status_code == 400
    assert (await sign_in(ADA, NEW_PASSWORD)).status_code == 200


@pytest.mark.any_database
async def test_a_link_to_reset_the_password_does_not_outlive_its_change(
    app: FastAPI, client: AsyncClient, as_ada: Headers, sign_in: SignIn
) -> None:
    stolen = await request_reset(app, client)
    await change(client, as_ada)

    answer = await confirm_reset(client, stolen, "the password of an intruder")

    assert answer.status_code == 400
    assert (await sign_in(password=NEW_PASSWORD)).status_code == 200


async def test_queued_mail_with_such_a_link_is_not_sent(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, database: Database
) -> None:
    async with database.transaction() as session:
        for kind, email, user_id in (
            (Kind.VERIFICATION, EVIL, ada["id"]),
            (Kind.RESET, ADA, None),
            (Kind.RESET, "bob@example.com", None),
        ):
            await queue_mail(session, kind, email=email, user_id=user_id)
        for mail in await session.scalars(select(QueuedMail)):
            mail.next_attempt_at = datetime.now(UTC) + timedelta(hours=1)

    await change(client, as_ada)

    links = select(QueuedMail.email).where(QueuedMail.kind.in_([Kind.VERIFICATION, Kind.RESET]))
    async with database.snapshot() as session:
        assert (await session.scalars(links)).all() == ["bob@example.com"]


async def test_mail_that_is_being_sent_meanwhile_gets_no_link(
    app: FastAPI,
    client: AsyncClient,
    as_ada: Headers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = repository.claim

    async def claim_and_change(session: AsyncSession, mail: QueuedMail, *, until: datetime) -> bool:
        monkeypatch.undo()
        claimed = await claim(session, mail, until=until)
        await session.commit()
        assert (await change(client, as_ada)).status_code == 204
        return claimed

    monkeypatch.setattr(repository, "claim", claim_and_change)
    await client.post("/password-reset", json={"email": ADA})

    async def is_changed() -> bool:
        return await count(database, QueuedMail) == 0

    await deliver_due(app.state.post)
    await eventually_async(is_changed)

    assert await count(database, OneTimeLink) == 0
    assert not any(b"Reset your password" in mail.read_bytes() for mail in mails_in(app))


@pytest.mark.costly
@pytest.mark.any_database
async def test_the_current_address_learns_that_another_one_was_requested(
    as_ada: Headers, open_app: OpenApp, sign_in: SignIn
) -> None:
    async with open_app(registration="verify") as verifying, browse(verifying) as intruder:
        await intruder.patch("/users/me", json={"email": EVIL}, headers=as_ada)
        notice = await next_mail(verifying, to=ADA, subject="change of your e-mail address")

    assert "token=" not in notice.as_string()
    assert EVIL not in notice.as_string()
    assert (await sign_in(ADA, PASSWORD)).status_code == 200


@pytest.mark.costly
@pytest.mark.any_database
async def test_the_current_address_is_not_flooded_with_notices(
    app: FastAPI, as_ada: Headers, open_app: OpenApp, database: Database
) -> None:
    async with open_app(registration="verify") as verifying, browse(verifying) as intruder:
        answers = [
            await intruder.patch("/users/me", json={"email": f"{n}@e.net"}, headers=as_ada)
            for n in range(7)
        ]

        async def all_are_sent() -> bool:
            return await count(database, QueuedMail) == 0

        await eventually_async(all_are_sent)
        notices = [
            each for each in mails_in(verifying) if f"To: {ADA}".encode() in each.read_bytes()
        ]

    assert [answer.status_code for answer in answers] == [200] * 7
    assert len(notices) == 5
