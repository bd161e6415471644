"""All SQL about machine clients."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, bindparam, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.auth.models import Client, User

_BY_IDS = select(*Client.__table__.columns).where(
    Client.client_id.in_(bindparam("client_ids", expanding=True))
)
"""Built once, and read without a session, which quarters the time of reading a client."""


async def find_client(session: AsyncSession, *, client_id: str) -> Client | None:
    if not client_id.isascii():  # MySQL cannot compare it with an ASCII column
        return None
    return await session.get(Client, client_id)


async def read_clients(
    connection: AsyncConnection, *, client_ids: Sequence[str]
) -> dict[str, Client]:
    """Return clients by id, which belong to no session; unknown ids are left out."""
    found = await connection.execute(_BY_IDS, {"client_ids": client_ids})
    return {row.client_id: Client(**row._mapping) for row in found}


async def is_owner_enabled(session: AsyncSession, client: Client) -> bool:
    """Return whether the user who owns a client may sign in; True for a client of no user."""
    if client.owner_id is None:
        return True
    enabled = select(User.id).where(User.id == client.owner_id, User.disabled_at.is_(None))
    return await session.scalar(enabled) is not None


async def get_client(session: AsyncSession, *, client_id: str) -> Client:
    """Return a client that is known to exist."""
    return await session.get_one(Client, client_id)


async def list_clients(session: AsyncSession, *, account_id: str) -> Sequence[Client]:
    """Return an account's clients, oldest first."""
    owned = select(Client).where(_belongs_to(account_id))
    return (await session.scalars(owned.order_by(Client.created_at, Client.client_id))).all()


async def add_client(session: AsyncSession, client: Client) -> bool:
    """Insert a client; return False, writing nothing, if its id is taken."""
    try:
        async with session.begin_nested():
            session.add(client)
    except IntegrityError:
        return False
    return True


async def delete_client(session: AsyncSession, *, account_id: str, client_id: str) -> bool:
    """Delete an account's client; return False if the account has no such client."""
    if not client_id.isascii():
        return False
    owned = delete(Client).where(Client.client_id == client_id, _belongs_to(account_id))
    result = cast(CursorResult[Any], await session.execute(owned))
    return result.rowcount == 1


async def list_first_party(session: AsyncSession) -> Sequence[str]:
    """Return the ids of the clients that are part of Tollgate."""
    own = select(Client.client_id).where(Client.is_first_party)
    return (await session.scalars(own.order_by(Client.client_id))).all()


async def delete_first_party(session: AsyncSession, *, client_id: str) -> bool:
    """Delete a client that is part of Tollgate; return False if another transaction already did."""
    own = delete(Client).where(Client.client_id == client_id, Client.is_first_party)
    return cast(CursorResult[Any], await session.execute(own)).rowcount == 1


def _belongs_to(account_id: str) -> ColumnElement[bool]:
    return or_(Client.owner_id == account_id, Client.organisation_id == account_id)
