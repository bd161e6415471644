"""Mail leaves through an SMTP server or as files, once, and failures are retried."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from harness.waiting import eventually_async
from services.auth.mail.delivery import MAX_AGE, Post, deliver_due
from services.auth.mail.queue import Kind, queue_mail
from services.auth.mail.transports import FolderTransport, SmtpTransport, open_transport
from services.auth.models import OneTimeLink, QueuedMail
from services.common.db.database import Database
from tests.integration.auth.conftest import count, mails_in, next_mail, token_in

pytestmark = pytest.mark.any_database


class Mailbox:
    """An SMTP server's handler: keeps what it accepts, and answers as configured."""

    def __init__(self) -> None:
        self.answer = "250 OK"
        self.received: list[tuple[list[str], EmailMessage]] = []
        self.port = 0

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            message: Any = message_from_bytes(envelope.content or b"", policy=default)  # type: ignore[arg-type]
            self.received.append((envelope.rcpt_tos, message))
        return self.answer

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"


OpenMailbox = Callable[..., AbstractAsyncContextManager[Mailbox]]


@pytest.fixture
def open_mailbox() -> OpenMailbox:
    """`async with open_mailbox()` runs an SMTP server on a free port of this machine."""

    @asynccontextmanager
    async def open_(**options: Any) -> AsyncIterator[Mailbox]:
        mailbox = Mailbox()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(mailbox, loop=loop, **options), "127.0.0.1", 0
        )
        mailbox.port = server.sockets[0].getsockname()[1]
        async with server:
            yield mailbox

    return open_


def post_through(database: Database, url: str) -> Post:
    return Post(database, SmtpTransport(url), "Tollgate <no-reply@auth.test>", "http://auth.test")


async def queue(database: Database, kind: Kind = Kind.INVITATION, **fields: Any) -> None:
    async with database.transaction() as session:
        await queue_mail(session, kind, **({"email": "ada@example.com"} | fields))


class TestSmtp:
    """On a database of their own, which no running app reads."""

    @pytest.fixture
    async def database(
        self, database_url: str, app: FastAPI, open_mailbox: OpenMailbox
    ) -> AsyncIterator[Database]:
        # The running app would take mail from the same queue: stop it from seeing any.
        taken = app.state.post.database
        database = Database(database_url)
        object.__setattr__(app.state.post, "database", _EmptyQueue())
        yield database
        object.__setattr__(app.state.post, "database", taken)
        await database.close()

    async def test_a_mail_reaches_the_server_as_text_and_html(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        async with open_mailbox() as mailbox:
            await queue(database, email="ada@bücher.example")
            await deliver_due(post_through(database, mailbox.url))

        [(recipients, message)] = mailbox.received
        assert recipients == ["ada@xn--bcher-kva.example"]
        assert message["From"] == "Tollgate <no-reply@auth.test>"
        assert message["Subject"] == "You are invited"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Message-ID"].endswith("@auth.test>")
        link = f"http://auth.test/register?token={token_in(message)}"
        html = message.get_body(("html",))
        assert html is not None
        assert f'<a href="{link}">' in html.get_content()
        assert await count(database, QueuedMail) == 0
        assert await count(database, OneTimeLink) == 1

    async def test_a_server_that_fails_for_now_gets_the_mail_later(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        async with open_mailbox() as mailbox:
            post = post_through(database, mailbox.url)
            mailbox.answer = "451 Try again later"
            await queue(database)
            await deliver_due(post)
            mailbox.answer = "250 OK"
            await deliver_due(post)  # not due yet
            waiting = await count(database, QueuedMail)
            await make_due(database)
            await deliver_due(post)

        assert waiting == 1
        assert len(mailbox.received) == 1
        assert await count(database, QueuedMail) == 0

    async def test_an_unreachable_server_keeps_the_mail_for_a_day(self, database: Database) -> None:
        post = post_through(database, "smtp://127.0.0.1:1")
        await queue(database)

        await deliver_due(post)
        young = await count(database, QueuedMail)
        await make_due(database, created_at=datetime.now(UTC) - MAX_AGE - timedelta(minutes=1))
        await deliver_due(post)
        old = await count(database, QueuedMail)

        assert (young, old) == (1, 0)

    async def test_a_mail_that_is_refused_for_good_is_not_retried(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        async with open_mailbox() as mailbox:
            mailbox.answer = "554 Refused"
            await queue(database)
            await deliver_due(post_through(database, mailbox.url))

        assert await count(database, QueuedMail) == 0

    async def test_several_replicas_send_each_mail_once(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        async with open_mailbox() as mailbox:
            for number in range(10):
                await queue(database, email=f"user{number}@example.com")
            post = post_through(database, mailbox.url)
            await asyncio.gather(*(deliver_due(post) for _ in range(4)))

        recipients = sorted(recipients[0] for recipients, _ in mailbox.received)
        assert recipients == sorted(f"user{number}@example.com" for number in range(10))
        assert await count(database, QueuedMail) == 0

    async def test_it_signs_in_with_the_password_of_the_url(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        given: list[tuple[bytes, bytes]] = []

        def authenticate(
            _server: object, _session: object, _envelope: object, _kind: str, data: Any
        ) -> AuthResult:
            given.append((data.login, data.password))
            return AuthResult(success=True)

        async with open_mailbox(authenticator=authenticate, auth_require_tls=False) as mailbox:
            await queue(database)
            url = mailbox.url.replace("//", "//mailer:p%40ss@")
            await deliver_due(post_through(database, url))

        assert given == [(b"mailer", b"p@ss")]
        assert len(mailbox.received) == 1

    async def test_nothing_is_sent_to_an_address_without_a_user(
        self, database: Database, open_mailbox: OpenMailbox
    ) -> None:
        async with open_mailbox() as mailbox:
            await queue(database, Kind.RESET)
            await deliver_due(post_through(database, mailbox.url))

        assert mailbox.received == []
        assert await count(database, QueuedMail) == 0
        assert await count(database, OneTimeLink) == 0


class _EmptyQueue:
    """Stands for the database of a delivery that must find no mail."""

    def snapshot(self) -> Any:
        @asynccontextmanager
        async def empty() -> AsyncIterator[Any]:
            yield self

        return empty()

    async def scalar(self, _statement: object) -> None:
        return None


async def make_due(database: Database, **changes: Any) -> None:
    async with database.transaction() as session:
        await session.execute(
            update(QueuedMail).values(next_attempt_at=datetime.now(UTC), **changes)
        )


async def test_without_a_server_mail_becomes_private_files(
    app: FastAPI, database: Database, client: AsyncClient
) -> None:
    await queue(database)

    await eventually_async(lambda: bool(mails_in(app)))
    [file] = mails_in(app)
    assert file.stat().st_mode & 0o777 == 0o600
    message = await next_mail(app, to="ada@example.com", subject="invited")
    assert len(token_in(message)) == 43


def test_the_setting_chooses_the_transport(tmp_path: Path) -> None:
    assert isinstance(open_transport("", folder=tmp_path), FolderTransport)
    assert isinstance(open_transport("smtps://mail.example.com", folder=tmp_path), SmtpTransport)
