"""All SQL about people at other providers."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import ProviderIdentity


async def find_identity(session: AsyncSession, *, identity_sha256: str) -> ProviderIdentity | None:
    return await session.get(ProviderIdentity, identity_sha256)


async def add_identity(session: AsyncSession, identity: ProviderIdentity) -> bool:
    """Insert an identity; return False, writing nothing, if it is linked already."""
    try:
        async with session.begin_nested():
            session.add(identity)
    except IntegrityError:
        return False
    return True
