"""All SQL about users."""

from sqlalchemy import Select, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import RefreshFamily, User


def _by_email(email: str) -> Select[User]:
    return select(User).where(User.email == email)


async def find_user(session: AsyncSession, *, user_id: str) -> User | None:
    return await session.get(User, user_id)


async def find_user_by_email(session: AsyncSession, *, email: str) -> User | None:
    """The user with this e-mail, which must be in its normal form."""
    return await session.scalar(_by_email(email))


async def get_user_by_email(session: AsyncSession, *, email: str) -> User:
    """The same, where it is known to exist."""
    return (await session.scalars(_by_email(email))).one()


async def add_user(session: AsyncSession, user: User) -> bool:
    """Insert a user; False, and nothing written, if the e-mail is taken."""
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError:
        return False
    return True


async def delete_logins(session: AsyncSession, *, user_id: str) -> None:
    """End every log-in of a user: its refresh tokens give no more access tokens."""
    await session.execute(delete(RefreshFamily).where(RefreshFamily.user_id == user_id))
