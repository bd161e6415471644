"""Create, find, disable and update users."""

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import OPERATOR, record
from services.auth.links.service import INVITE, RESET_PASSWORD, VERIFY_EMAIL, cancel_links
from services.auth.mail.queue import cancel_invitations, cancel_mail
from services.auth.models import User
from services.auth.organisations.memberships import end_invitations_by
from services.auth.passwords import PasswordHasher, check_new_password
from services.auth.revocations.service import publish
from services.auth.tokens.logins import end_logins
from services.auth.users import repository
from services.auth.users.emails import check_email, fold_email, normalise_email
from services.auth.users.shapes import LoginUser, Namesake
from services.common.contracts import RevocationKind
from services.common.errors import NotFound, ServiceError

N = TypeVar("N", bound=Namesake)


class EmailTaken(ServiceError):
    """A user with this e-mail address already exists."""

    status = 409
    code = "email_taken"
    detail = "A user with this e-mail address already exists."


class UserNotFound(NotFound):
    """No user has this e-mail address."""

    code = "user_not_found"
    detail = "No user has this e-mail address."


class LastAdministrator(ServiceError):
    """Disabling this user would leave no administrator."""

    status = 409
    code = "last_administrator"
    detail = "This is the last administrator; appoint another one first."


async def create_user(
    session: AsyncSession,
    *,
    hasher: PasswordHasher,
    email: str,
    password: str,
    admin: bool = False,
) -> User:
    """Create a user, for an operator.

    Raises:
        BodyInvalid: the address is malformed, or the password too short, too long or too common.
        EmailTaken: a user has this e-mail address in any spelling (see `emails.normalise_email`).
        Unavailable: too many passwords are being hashed.
    """
    user = await prepare_user(hasher=hasher, email=email, password=password, admin=admin)
    return await store_user(session, user=user, email=email, actor=OPERATOR)


async def prepare_user(
    *, hasher: PasswordHasher, email: str, password: str, admin: bool = False
) -> User:
    """Return a new user, validated and with a hashed password, but not stored yet.

    Raises:
        BodyInvalid: the address is malformed, or the password too short, too long or too common.
        Unavailable: too many passwords are being hashed.
    """
    address = check_email(email)
    check_new_password(password)
    with hasher.reserve():
        return new_user(address, await hasher.hash(password), admin=admin)


async def store_user(
    session: AsyncSession,
    *,
    user: User,
    email: str,
    actor: str | None = None,
    address: str | None = None,
) -> User:
    """Store a user from `prepare_user`.

    Args:
        email: the e-mail address as typed.
        actor: who creates the user; default the user.
        address: where the request came from.

    Raises:
        EmailTaken: a user has this e-mail address in any spelling (see `emails.normalise_email`).
    """
    existing = await find_user_by_email(session, email=email)
    if existing is not None or not await repository.add_user(session, user):
        raise EmailTaken()
    await record(
        session,
        "user_created" if actor else "user_registered",
        actor=actor or user.id,
        target=user.id,
        address=address,
    )
    return user


async def find_user(session: AsyncSession, *, user_id: str) -> User | None:
    """Return the user with this id, disabled or not."""
    return await repository.find_user(session, user_id=user_id)


async def lock_user(session: AsyncSession, *, user_id: str) -> User | None:
    """Return a user as stored now, locked until the transaction ends."""
    if not user_id.isascii():  # MySQL cannot compare it with an ASCII column
        return None
    return await repository.lock_user(session, user_id=user_id)


async def lock_users(session: AsyncSession, *, user_ids: Sequence[str]) -> dict[str, User]:
    """Return users as stored now by id, locked until the transaction ends; unknown ids are left
    out.

    Who locks several users does so in one call, which takes them in the order of their ids.
    """
    locked = await repository.lock_users(session, user_ids=sorted(user_ids))
    return {user.id: user for user in locked}


def is_enabled(user: User | None) -> TypeGuard[User]:
    """Return whether a user exists and is not disabled."""
    return user is not None and user.disabled_at is None


async def lock_unchanged(session: AsyncSession, *, user: User) -> User | None:
    """Lock a user that was read before; None if it was since disabled or got another password."""
    stored = await repository.lock_user(session, user_id=user.id)
    return stored if stored is not None and is_unchanged(stored, since=user) else None


def is_unchanged(user: LoginUser, *, since: Namesake) -> bool:
    """Return whether a user is enabled and still has the password that was read before."""
    return user.disabled_at is None and user.password_hash == since.password_hash


async def find_user_by_email(session: AsyncSession, *, email: str) -> User | None:
    """Return the user with this address in any spelling."""
    normal = normalise_email(email)
    users = await repository.list_namesakes(session, email=normal, folded=fold_email(email))
    return choose_namesake(users, normal=normal)


def choose_namesake(users: Sequence[N], *, normal: str) -> N | None:
    """Return the user that a typed address refers to, or None.

    A user whose stored address could not be normalised, because another user has that form, is
    only found by the stored spelling. Otherwise the normalised form takes precedence over the
    coarser form that older versions stored.

    Args:
        users: those whose `email` is `normal`, or whose `folded_email` matches the typed address.
        normal: the normalised form of the typed address.
    """

    def rank(user: N) -> int:
        if user.email == normal:
            return 1
        return 0 if normalise_email(user.email) == normal else 2

    return min(users, key=rank, default=None)


async def set_disabled(
    session: AsyncSession, *, email: str, disabled: bool, allow_last_admin: bool = False
) -> tuple[User, bool]:
    """Disable or enable a user; return the user and whether anything changed.

    Disabling ends the user's sessions and invitations, and the API keys and clients of the user's
    account.

    Raises:
        UserNotFound: no user has this e-mail address.
        LastAdministrator: no other administrator would be left, and `allow_last_admin` is False.
    """
    user = await find_user_by_email(session, email=email)
    if user is None:
        raise UserNotFound()
    if (user.disabled_at is not None) == disabled:
        return user, False
    if disabled and not allow_last_admin:
        await keep_an_administrator(session, user=user)
    await _disable(session, user=user, disabled=disabled, actor=OPERATOR)
    return user, True


async def get_user_by_id(session: AsyncSession, *, user_id: str) -> User:
    """Return a user.

    Raises:
        UserNotFound: no user has this id.
    """
    user = await find_user(session, user_id=user_id) if user_id.isascii() else None
    if user is None:
        raise UserNotFound("No user has this id.")
    return user


async def switch_user(
    session: AsyncSession, *, user: User, disabled: bool, actor: str, address: str
) -> User:
    """Disable or enable a user for an administrator; nothing happens if it already is so.

    Raises:
        LastAdministrator: no other administrator would be left.
    """
    if (user.disabled_at is not None) != disabled:
        if disabled:
            await keep_an_administrator(session, user=user)
        await _disable(session, user=user, disabled=disabled, actor=actor, address=address)
    return user


async def list_users(session: AsyncSession, *, after: str, limit: int) -> Sequence[User]:
    """Return users whose ids follow `after`, in the order of their ids."""
    return await repository.list_after(session, after=after, limit=limit)


async def list_users_by_ids(session: AsyncSession, *, ids: Collection[str]) -> Sequence[User]:
    """Return the users that have one of these ids, in the order of their ids."""
    return await repository.list_by_ids(session, ids=ids)


async def keep_an_administrator(session: AsyncSession, *, user: User) -> None:
    """Refuse to lose the last administrator; locks all of them until the transaction ends.

    Raises:
        LastAdministrator: the user is the only enabled administrator.
    """
    if user.is_admin and user.disabled_at is None:
        admins = await repository.lock_active_admins(session)
        if not any(admin.id != user.id for admin in admins):
            raise LastAdministrator()


async def _disable(
    session: AsyncSession, *, user: User, disabled: bool, actor: str, address: str | None = None
) -> None:
    if await repository.lock_user(session, user_id=user.id) is None:
        raise UserNotFound()
    user.disabled_at = datetime.now(UTC) if disabled else None
    if disabled:
        await revoke_all(session, user=user)
        await _cancel_registrations_by(session, user_id=user.id)
        await end_invitations_by(session, user_id=user.id, actor=actor, address=address)
    action = "user_disabled" if disabled else "user_enabled"
    await record(session, action, actor=actor, target=user.id, address=address)
    await session.flush()


async def ensure_user(
    session: AsyncSession, *, hasher: PasswordHasher, email: str, password: str, admin: bool
) -> User:
    """Create or update an enabled user with exactly this password and role.

    Changing the password ends the user's sessions. For operators; safe to repeat and, by
    `in_transaction`, to run in several processes at once.

    Raises:
        BodyInvalid: the address is malformed, or the password too short, too long or too common.
    """
    check_new_password(password)
    user = await find_user_by_email(session, email=email)
    if user is None:
        new = new_user(check_email(email), await hasher.hash(password), admin=admin)
        if await repository.add_user(session, new):
            await record(session, "user_created", actor=OPERATOR, target=new.id)
            return new
        user = await find_user_by_email(session, email=email)
        if user is None:
            raise EmailTaken()  # another process created the user and deleted it again
    if not await hasher.verify(password, user.password_hash):
        user.password_hash = await hasher.hash(password)
        await end_sessions(session, user=user)
        await record(session, "password_changed", actor=OPERATOR, target=user.id)
    if (user.is_admin, user.disabled_at) != (admin, None):
        await record(session, "user_updated", actor=OPERATOR, target=user.id)
    user.is_admin = admin
    user.disabled_at = None
    await session.flush()
    if not admin:
        await _cancel_registrations_by(session, user_id=user.id)
    return user


async def end_sessions(session: AsyncSession, *, user: User) -> None:
    """Revoke all access and refresh tokens of a user who gets a new password.

    Links that were sent or are about to be are cancelled, too: a thief of the old password or
    of a token may have requested them.
    """
    await cancel_mail(session, user_id=user.id, email=user.email)
    await cancel_links(session, user_id=user.id, purposes=(VERIFY_EMAIL, RESET_PASSWORD))
    await end_logins(session, user_id=user.id)
    user.tokens_from = await publish(session, ("user", user.id), after=user.tokens_from)


async def revoke_all(session: AsyncSession, *, user: User) -> None:
    """Revoke also the credentials of programs that use the user's account, and the tokens that
    anyone has given the user's apps."""
    await end_logins(session, user_id=user.id)
    revoked: list[tuple[RevocationKind, str]] = [("user", user.id), ("account", user.id)]
    for app in await repository.list_apps(session, owner_id=user.id):
        revoked.append(("client", app))
    user.tokens_from = await publish(session, *revoked, after=user.tokens_from)
    await repository.date_client_tokens(session, owner_id=user.id, tokens_from=user.tokens_from)


async def _cancel_registrations_by(session: AsyncSession, *, user_id: str) -> None:
    """End the invitations to register by someone who is no longer an administrator."""
    await cancel_invitations(session, user_id=user_id)
    await cancel_links(session, user_id=user_id, purposes=(INVITE,))


def new_user(email: str, password_hash: str, *, admin: bool) -> User:
    """Return a user with a normalised e-mail address, not stored yet."""
    return User(
        id=str(uuid.uuid4()),
        email=email,
        password_hash=password_hash,
        is_admin=admin,
        created_at=datetime.now(UTC),
        disabled_at=None,
    )
