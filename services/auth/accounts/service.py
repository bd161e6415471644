"""What can be done with an account."""

import uuid
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.accounts import repository
from services.auth.accounts.emails import check_email
from services.auth.models import User
from services.auth.passwords import PasswordHasher, check_new_password
from services.common.errors import ServiceError, Unauthenticated


class EmailTaken(ServiceError):
    """There is an account with this e-mail already; nothing was written."""

    status = 409
    code = "email_taken"
    detail = "There is an account with this e-mail already."


async def create_account(
    session: AsyncSession,
    *,
    hasher: PasswordHasher,
    email: str,
    password: str,
    admin: bool = False,
) -> User:
    """Create an account.

    Raises:
        BodyInvalid: the e-mail is malformed, or the password too short, too long or too common.
        EmailTaken: in any spelling (`emails.normalise_email`).
        Unavailable: too many passwords are being hashed.
    """
    address = check_email(email)
    check_new_password(password)
    # Hashed before the first statement: a session takes its connection only then.
    with hasher.place():
        user = _new_user(address, await hasher.hash(password), admin=admin)
    if not await repository.add_user(session, user):
        raise EmailTaken()
    return user


async def ensure_account(
    session: AsyncSession, *, hasher: PasswordHasher, email: str, password: str, admin: bool
) -> User:
    """Have an account with exactly this password and rank, whatever was there before.

    It is enabled, and a change of password ends its log-ins. For operators; safe to repeat, and
    to run in several processes at once.

    Raises:
        BodyInvalid: the e-mail is malformed, or the password too short, too long or too common.
    """
    address = check_email(email)
    check_new_password(password)
    user = await repository.find_user_by_email(session, email=address)
    if user is None:
        user = _new_user(address, await hasher.hash(password), admin=admin)
        if await repository.add_user(session, user):
            return user
        user = await repository.get_user_by_email(session, email=address)
    if not await hasher.verify(password, user.password_hash):
        user.password_hash = await hasher.hash(password)
        await repository.delete_logins(session, user_id=user.id)
    user.is_admin = admin
    user.disabled_at = None
    await session.flush()
    return user


async def get_account(session: AsyncSession, *, account: str) -> User:
    """The account a token speaks for.

    Raises:
        Unauthenticated: it is gone or disabled, or the token is a service's own.
    """
    user = await repository.find_user(session, user_id=account)
    if user is None or user.disabled_at is not None:
        raise Unauthenticated()
    return user


def allowed_scope(user: User) -> str:
    """All that a user's tokens may be granted."""
    return "predict usage:read admin" if user.is_admin else "predict usage:read"


def _new_user(email: str, password_hash: str, *, admin: bool) -> User:
    return User(
        id=str(uuid.uuid4()),
        email=email,
        password_hash=password_hash,
        is_admin=admin,
        created_at=datetime.now(UTC),
        disabled_at=None,
    )
