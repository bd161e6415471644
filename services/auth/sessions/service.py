"""Who is signed in with which browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.clients.credentials import secret_digest
from services.auth.models import User
from services.auth.organisations.memberships import Account
from services.auth.sessions import repository
from services.auth.sessions.cookies import new_secret
from services.auth.sessions.models import BrowserSession
from services.auth.users.service import find_user
from services.auth.users.shapes import LoginUser

CODE_WAIT = timedelta(minutes=10)
"""How long after the password the code of the second factor may follow."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person who is signed in with a browser, or only lacks the code of the second factor."""

    user: User
    authenticated_at: datetime | None
    """None while the code is missing."""


async def start_session(
    session: AsyncSession, *, user: LoginUser, lifetime_s: int, replaced: str | None
) -> str:
    """Sign a user in; return the secret for the browser's cookie, which is not stored.

    Args:
        replaced: the secret of the cookie so far, whose session ends.
    """
    now = not_before(user)
    return await _add(
        session,
        user=user,
        authenticated_at=now,
        expires_at=now + timedelta(seconds=lifetime_s),
        replaced=replaced,
    )


async def await_code(session: AsyncSession, *, user: LoginUser, replaced: str | None) -> str:
    """Remember that a user has entered the right password, and needs a code to sign in.

    Return the secret for the browser's cookie.
    """
    expires_at = not_before(user) + CODE_WAIT
    return await _add(
        session, user=user, authenticated_at=None, expires_at=expires_at, replaced=replaced
    )


async def find_signed_in(session: AsyncSession, *, secret: str | None) -> SignedIn | None:
    """Return who uses the browser with this cookie; None if nobody is signed in.

    A session ends with whatever ends the user's tokens, such as a changed password.
    """
    if secret is None:
        return None
    row = await repository.find_session(
        session, id_sha256=secret_digest(secret), now=datetime.now(UTC)
    )
    user = await find_user(session, user_id=row.user_id) if row is not None else None
    if row is None or user is None or not is_current(user, row.created_at):
        return None
    return SignedIn(user, row.authenticated_at)


async def list_sessions_of(session: AsyncSession, *, user_id: str) -> Sequence[BrowserSession]:
    """Return the browser sessions that are stored of a user, oldest first."""
    return await repository.list_sessions(session, user_id=user_id)


def is_current(user: User, since: datetime) -> bool:
    """Return whether what a user began at some time is still valid: nothing has ended it since."""
    return user.disabled_at is None and not is_outdated(since, user.tokens_from)


def is_outdated(since: datetime, tokens_from: datetime | None) -> bool:
    """Return whether what began at some time has been revoked since."""
    return tokens_from is not None and since < tokens_from


def not_before(owner: LoginUser | Account) -> datetime:
    """Return the time now or, if it is later, when the owner's tokens become valid again.

    In the second in which tokens are revoked, new ones date from the next second.
    """
    now = datetime.now(UTC)
    return max(now, owner.tokens_from) if owner.tokens_from else now


async def end_session(session: AsyncSession, *, secret: str, address: str) -> None:
    """Sign the user of a browser out, if anyone is signed in."""
    signed_in = await find_signed_in(session, secret=secret)
    await repository.delete_session(session, id_sha256=secret_digest(secret))
    if signed_in is not None and signed_in.authenticated_at is not None:
        user_id = signed_in.user.id
        await record(session, "session_ended", actor=user_id, target=user_id, address=address)


async def delete_expired_sessions(session: AsyncSession, *, now: datetime) -> None:
    """Delete sessions that have expired."""
    await repository.delete_expired(session, now=now)


async def _add(
    session: AsyncSession,
    *,
    user: LoginUser,
    authenticated_at: datetime | None,
    expires_at: datetime,
    replaced: str | None,
) -> str:
    if replaced is not None:
        await repository.delete_session(session, id_sha256=secret_digest(replaced))
    secret = new_secret()
    row = BrowserSession(
        id_sha256=secret_digest(secret),
        user_id=user.id,
        created_at=not_before(user),
        authenticated_at=authenticated_at,
        expires_at=expires_at,
    )
    await repository.add_session(session, row)
    return secret
