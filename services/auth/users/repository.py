"""All SQL about users."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Client, User


async def find_user(session: AsyncSession, *, user_id: str) -> User | None:
    return await session.get(User, user_id)


async def list_namesakes(session: AsyncSession, *, email: str, folded: str) -> Sequence[User]:
    """Return the users that an address may refer to.

    Args:
        email: the address in its normalised form.
        folded: the address in the coarser form that older versions stored.
    """
    alike = or_(User.email == email, User.folded_email == folded)
    return (await session.scalars(select(User).where(alike))).all()


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


async def add_user(session: AsyncSession, user: User) -> bool:
    """Insert a user; return False, writing nothing, if the e-mail is taken."""
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError:
        return False
    return True
