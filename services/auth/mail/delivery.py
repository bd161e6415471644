"""Send queued mail: at least once, retried for a day, in any number of processes at once.

A link is created when its message is sent, so the queue contains no secret. A second attempt
creates a new link and has the same Message-ID.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import idna
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.links.service import (
    INVITE,
    JOIN,
    REGISTER,
    RESET_PASSWORD,
    VERIFY_EMAIL,
    create_link,
)
from services.auth.mail import repository
from services.auth.mail.queue import Kind
from services.auth.mail.texts import ALREADY_REGISTERED, TEXTS, Text, render_html, render_plain
from services.auth.mail.transports import RejectedError, Transport
from services.auth.models import QueuedMail, User
from services.auth.organisations.invitations import find_invited
from services.auth.organisations.memberships import find_organisation
from services.auth.users.service import find_user_by_email, lock_user
from services.common.db.database import Database
from services.common.telemetry.requests import log

MAX_AGE = timedelta(days=1)
"""How long sending is tried."""

_MAX_PER_ROUND = 100
_LONGEST_WAIT_S = 3600


@dataclass(frozen=True, slots=True)
class Post:
    """What sending mail needs; `app.py` creates it once."""

    database: Database
    transport: Transport
    sender: str
    """The `From` header, such as `Tollgate <no-reply@example.com>`."""
    pages_url: str
    """Base URL of the pages that links lead to."""


def retry_wait(attempts: int) -> timedelta:
    """Return how long to wait after an attempt: 30 s, doubled each time, at most an hour."""
    return timedelta(seconds=min(30 * 2 ** min(attempts, 10), _LONGEST_WAIT_S))


async def deliver_due(post: Post) -> None:
    """Try to send every mail that is due.

    Raises:
        Unavailable: the database is unavailable.
    """
    for _ in range(_MAX_PER_ROUND):
        now = datetime.now(UTC)
        async with post.database.snapshot() as session:
            mail = await repository.find_due(session, now=now)
        if mail is None:
            return
        async with post.database.transaction() as session:
            claimed = await repository.claim(session, mail, until=now + retry_wait(mail.attempts))
        if claimed:
            await _deliver(post, mail)


async def _deliver(post: Post, mail: QueuedMail) -> None:
    try:
        async with post.database.transaction() as session:
            message = await _compose(session, post, mail)
        if message is not None:
            await post.transport.send(message)
    except RejectedError as error:
        log.warning("mail_rejected", mail=mail.id, kind=mail.kind, reason=str(error))
    except OSError as error:
        too_old = datetime.now(UTC) - mail.created_at > MAX_AGE
        event = "mail_dropped" if too_old else "mail_failed"
        reason = str(error) or type(error).__name__
        log.warning(event, mail=mail.id, kind=mail.kind, attempt=mail.attempts + 1, reason=reason)
        if not too_old:
            return
    async with post.database.transaction() as session:
        await repository.delete_mail(session, mail_id=mail.id)


async def _compose(session: AsyncSession, post: Post, mail: QueuedMail) -> EmailMessage | None:
    """Return the message to send now, with its link stored; None if there is nothing to send."""
    text, token, recipient = TEXTS[Kind(mail.kind)], None, mail.email
    user = await find_user_by_email(session, email=mail.email)
    match mail.kind:
        case Kind.REGISTRATION | Kind.INVITATION if user is not None:
            text, recipient = ALREADY_REGISTERED, user.email
        case Kind.REGISTRATION:
            token = await create_link(
                session, purpose=REGISTER, email=mail.email, password_hash=mail.password_hash
            )
        case Kind.INVITATION:
            inviter = await _lock_user(session, mail, user_id=mail.user_id)
            if inviter is None and mail.user_id is not None:
                return None
            token = await create_link(
                session, purpose=INVITE, email=mail.email, user_id=mail.user_id
            )
        case Kind.JOIN:
            organisation = await find_invited(
                session, organisation_id=mail.organisation_id, email=mail.email
            )
            if organisation is None:
                return None
            text = text.about(organisation.name)
            token = await create_link(
                session, purpose=JOIN, email=mail.email, organisation_id=organisation.id
            )
        case Kind.ADDED:
            organisation = await find_organisation(
                session, organisation_id=mail.organisation_id or ""
            )
            text = text.about(organisation.name if organisation else "")
        case Kind.VERIFICATION:
            owner = await _lock_user(session, mail, user_id=mail.user_id)
            if owner is None:
                return None
            token = await create_link(
                session, purpose=VERIFY_EMAIL, email=mail.email, user_id=owner.id
            )
        case Kind.RESET:
            owner = await _lock_user(session, mail, user_id=user.id if user else None)
            if owner is None:
                return None
            recipient = owner.email  # never another spelling, which may be someone else's
            token = await create_link(
                session, purpose=RESET_PASSWORD, email=owner.email, user_id=owner.id
            )
    text = text.with_request(at=mail.created_at, address=mail.address)
    return _message(post, mail, text, token=token, recipient=recipient)


async def _lock_user(
    session: AsyncSession, mail: QueuedMail, *, user_id: str | None
) -> User | None:
    """Return the enabled user on whom a link depends; None if the message was cancelled meanwhile.

    The lock keeps what cancels the user's links, such as a new password, from missing this one.
    """
    user = await lock_user(session, user_id=user_id or "")
    if user is None or user.disabled_at is not None:
        return None
    return user if await repository.is_queued(session, mail_id=mail.id) else None


def _message(
    post: Post, mail: QueuedMail, text: Text, *, token: str | None, recipient: str
) -> EmailMessage:
    link = None
    if token is not None and text.path is not None:
        link = f"{post.pages_url}{text.path}?token={token}"
    local, _, domain = recipient.rpartition("@")
    message = EmailMessage()
    message["From"] = post.sender
    message["To"] = Address(username=local, domain=_as_ascii(domain))
    message["Subject"] = text.subject
    message["Date"] = format_datetime(mail.created_at)
    sender_domain = parseaddr(post.sender)[1].rpartition("@")[2] or "localhost"
    message["Message-ID"] = f"<{mail.id}@{sender_domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    message.set_content(render_plain(text, link=link, token=token))
    message.add_alternative(render_html(text, link=link), subtype="html")
    return message


def _as_ascii(domain: str) -> str:
    try:
        return idna.encode(domain).decode()
    except idna.IDNAError:
        return domain
