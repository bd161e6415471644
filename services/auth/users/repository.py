"""All SQL about users."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, bindparam, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Client, RecoveryCode, User

# Statements of a sign-in, built once, because building one takes longer than sending it.
_LOCK_BY_ID = (
    select(User)
    .where(User.id == bindparam("user_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_NAMESAKES = select(User).where(
    or_(User.email == bindparam("email"), User.folded_email == bindparam("folded"))
)


async def find_user(session: AsyncSession, *, user_id: str) -> User | None:
    return await session.get(User, user_id)


async def lock_user(session: AsyncSession, *, user_id: str) -> User | None:
    """Return a user as stored now, locked until the transaction ends."""
    return await session.scalar(_LOCK_BY_ID, {"user_id": user_id})


async def lock_users(session: AsyncSession, *, user_ids: Sequence[str]) -> Sequence[User]:
    """Return users as stored now, locked in the order of their ids until the transaction ends."""
    named = select(User).where(User.id.in_(user_ids)).order_by(User.id).with_for_update()
    return (await session.scalars(named.execution_options(populate_existing=True))).all()


async def list_namesakes(session: AsyncSession, *, email: str, folded: str) -> Sequence[User]:
    """Return the users that an address may refer to.

    Args:
        email: the address in its normalised form.
        folded: the address in the coarser form that older versions stored.
    """
    return (await session.scalars(_NAMESAKES, {"email": email, "folded": folded})).all()


async def lock_active_admins(session: AsyncSession) -> Sequence[User]:
    """Return the enabled administrators, locked until the transaction ends."""
    admins = select(User).where(User.is_admin, User.disabled_at.is_(None)).order_by(User.id)
    return (await session.scalars(admins.with_for_update())).all()


async def date_client_tokens(
    session: AsyncSession, *, owner_id: str, tokens_from: datetime
) -> None:
    """Make the earlier tokens of a user's clients invalid."""
    owned = update(Client).where(Client.owner_id == owner_id)
    await session.execute(owned.values(tokens_from=tokens_from))


async def list_apps(session: AsyncSession, *, owner_id: str) -> Sequence[str]:
    """Return the ids of a user's public clients."""
    apps = select(Client.client_id).where(
        Client.owner_id == owner_id, Client.redirect_addresses.is_not(None)
    )
    return (await session.scalars(apps)).all()


async def add_user(session: AsyncSession, user: User) -> bool:
    """Insert a user; return False, writing nothing, if the e-mail address is taken."""
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError:
        return False
    return True


async def list_after(session: AsyncSession, *, after: str, limit: int) -> Sequence[User]:
    """Return users whose ids follow `after`, in the order of their ids."""
    page = select(User).where(User.id > after).order_by(User.id).limit(limit)
    return (await session.scalars(page)).all()


async def list_by_ids(session: AsyncSession, *, ids: Collection[str]) -> Sequence[User]:
    """Return the users that have one of these ids, in the order of their ids."""
    named = select(User).where(User.id.in_(ids)).order_by(User.id)
    return (await session.scalars(named)).all()


async def set_email(session: AsyncSession, user: User, *, email: str) -> bool:
    """Store another e-mail address, which is not verified; return False if it is taken."""
    try:
        async with session.begin_nested():
            user.email, user.folded_email, user.email_verified_at = email, None, None
    except IntegrityError:
        return False
    return True


async def delete_user(session: AsyncSession, *, user_id: str) -> None:
    """Delete a user; foreign keys delete what belongs to them."""
    await session.execute(delete(User).where(User.id == user_id))


async def replace_recovery_codes(
    session: AsyncSession, *, user_id: str, digests: Sequence[str]
) -> None:
    """Delete a user's recovery codes and store others."""
    await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    if digests:
        rows = [{"code_sha256": digest, "user_id": user_id} for digest in digests]
        await session.execute(insert(RecoveryCode), rows)


async def delete_recovery_code(session: AsyncSession, *, user_id: str, digest: str) -> bool:
    """Use up a recovery code; return False if the user has no such code."""
    own = delete(RecoveryCode).where(
        RecoveryCode.code_sha256 == digest, RecoveryCode.user_id == user_id
    )
    return cast(CursorResult[Any], await session.execute(own)).rowcount == 1


async def advance_totp(session: AsyncSession, *, user_id: str, step: int) -> bool:
    """Record the time step of an accepted code; return False unless it is a later one."""
    later = or_(User.totp_last_step.is_(None), User.totp_last_step < step)
    statement = (
        update(User)
        .where(User.id == user_id, later)
        .values(totp_last_step=step)
        .execution_options(synchronize_session=False)
    )
    return cast(CursorResult[Any], await session.execute(statement)).rowcount == 1
