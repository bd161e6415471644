"""Whether a verified token still speaks for a user: what its signature cannot say."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.accounts.repository import find_user
from services.auth.clients.repository import find_client
from services.auth.models import User
from services.common.errors import Unauthenticated
from services.common.identity import Caller

FIRST_PARTY = "tollgate-web"
"""The `client_id` of tokens got with a password: a public client, without a secret (RFC 6749
§2.1). The docs pages and any program that asks for e-mail and password are this client."""


async def is_active(session: AsyncSession, *, caller: Caller) -> bool:
    """Whether neither the user nor the client of a token is deleted, disabled or expired."""
    if caller.client_id != FIRST_PARTY:
        client = await find_client(session, client_id=caller.client_id)
        if client is None or client.has_expired(datetime.now(UTC)):
            return False
        if client.owner_id is None:
            return caller.account == client.client_id
        if client.owner_id != caller.account:
            return False
    user = await find_user(session, user_id=caller.account)
    return user is not None and user.disabled_at is None


async def get_user(session: AsyncSession, *, caller: Caller) -> User:
    """Return the user whom a token speaks for; every endpoint that takes tokens begins with this.

    Raises:
        Unauthenticated: the token is no longer active, or a service's own.
    """
    user = await find_user(session, user_id=caller.account)
    if user is None or not await is_active(session, caller=caller):
        raise Unauthenticated()
    return user
