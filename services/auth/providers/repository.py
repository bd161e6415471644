"""All SQL about people at other providers."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.providers.models import ProviderIdentity


async def find_identity(session: AsyncSession, *, identity_sha256: str) -> ProviderIdentity | None:
    return await session.get(ProviderIdentity, identity_sha256)


async def list_identities(session: AsyncSession, *, user_id: str) -> Sequence[ProviderIdentity]:
    """Return the identities of a user, oldest first."""
    own = select(ProviderIdentity).where(ProviderIdentity.user_id == user_id)
    in_order = own.order_by(ProviderIdentity.created_at, ProviderIdentity.identity_sha256)
    return (await session.scalars(in_order)).all()


async def add_identity(session: AsyncSession, identity: ProviderIdentity) -> bool:
    """Insert an identity; return False, writing nothing, if it is linked already."""
    try:
        async with session.begin_nested():
            session.add(identity)
    except IntegrityError:
        return False
    return True
