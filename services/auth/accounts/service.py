"""What can be done with an account."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.accounts import repository
from services.auth.accounts.emails import check_email, fold_email, normalise_email
from services.auth.models import User
from services.auth.passwords import PasswordHasher, check_new_password
from services.common.errors import NotFound, ServiceError


class EmailTaken(ServiceError):
    """There is an account with this e-mail already; nothing was written."""

    status = 409
    code = "email_taken"
    detail = "There is an account with this e-mail already."


class UserNotFound(NotFound):
    """Nobody has this e-mail."""

    code = "user_not_found"
    detail = "No user has this e-mail."


class LastAdministrator(ServiceError):
    """Disabling this user would leave no administrator."""

    status = 409
    code = "last_administrator"
    detail = "This is the last administrator; with --force it is disabled all the same."


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
    user = await prepare_account(hasher=hasher, email=email, password=password, admin=admin)
    return await store_account(session, user=user, email=email)


async def prepare_account(
    *, hasher: PasswordHasher, email: str, password: str, admin: bool = False
) -> User:
    """Return a new account that is not stored yet: checked, and its password hashed.

    Raises:
        BodyInvalid: the e-mail is malformed, or the password too short, too long or too common.
        Unavailable: too many passwords are being hashed.
    """
    address = check_email(email)
    check_new_password(password)
    with hasher.place():
        return _new_user(address, await hasher.hash(password), admin=admin)


async def store_account(session: AsyncSession, *, user: User, email: str) -> User:
    """Store an account from `prepare_account`, given the e-mail as it was typed.

    Raises:
        EmailTaken: in any spelling (`emails.normalise_email`).
    """
    taken = await find_user_by_email(session, email=email)
    if taken is not None or not await repository.add_user(session, user):
        raise EmailTaken()
    return user


async def find_user_by_email(session: AsyncSession, *, email: str) -> User | None:
    """Return the user whose address this is, in whatever spelling."""
    normal = normalise_email(email)
    found = await repository.list_namesakes(session, email=normal, folded=fold_email(email))
    return choose_namesake(found, normal=normal)


def choose_namesake(found: Sequence[User], *, normal: str) -> User | None:
    """Return whom a typed address means, of the users it may mean.

    A user whose stored spelling had to stay, because another user has its normal form, is meant
    by that spelling alone. Otherwise the normal form decides; if nobody has it, the coarser form
    that older versions stored.

    Args:
        found: those whose `email` is `normal`, or whose `folded_email` is the typed address's.
        normal: the normal form of the typed address.
    """

    def rank(user: User) -> int:
        if user.email == normal:
            return 1
        return 0 if normalise_email(user.email) == normal else 2

    return min(found, key=rank, default=None)


async def set_disabled(
    session: AsyncSession, *, email: str, disabled: bool, allow_last_admin: bool = False
) -> tuple[User, bool]:
    """Disable or enable a user; returns the user and whether that changed anything.

    A disabled user's refresh tokens end. Access tokens are refused by auth at once, and by the
    other services when they expire.

    Raises:
        UserNotFound: nobody has this e-mail.
        LastAdministrator: nobody else could administer; not with `allow_last_admin`.
    """
    user = await find_user_by_email(session, email=email)
    if user is None:
        raise UserNotFound()
    if (user.disabled_at is not None) == disabled:
        return user, False
    if disabled and user.is_admin and not allow_last_admin:
        admins = await repository.lock_active_admins(session)
        if not any(admin.id != user.id for admin in admins):
            raise LastAdministrator()
    user.disabled_at = datetime.now(UTC) if disabled else None
    if disabled:
        await repository.delete_logins(session, user_id=user.id)
    await session.flush()
    return user, True


async def ensure_account(
    session: AsyncSession, *, hasher: PasswordHasher, email: str, password: str, admin: bool
) -> User:
    """Have an account with exactly this password and rank, whatever was there before.

    It is enabled, and a change of password ends its log-ins. For operators; safe to repeat, and
    to run in several processes at once.

    Raises:
        BodyInvalid: the e-mail is malformed, or the password too short, too long or too common.
    """
    check_new_password(password)
    user = await find_user_by_email(session, email=email)
    if user is None:
        new = _new_user(check_email(email), await hasher.hash(password), admin=admin)
        if await repository.add_user(session, new):
            return new
        user = await find_user_by_email(session, email=email)
        if user is None:
            raise EmailTaken()  # and deleted again since
    if not await hasher.verify(password, user.password_hash):
        user.password_hash = await hasher.hash(password)
        await repository.delete_logins(session, user_id=user.id)
    user.is_admin = admin
    user.disabled_at = None
    await session.flush()
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
