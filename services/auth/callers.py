"""Check that a verified token is still active, which its signature alone cannot show."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.clients.credentials import find_client
from services.auth.models import User
from services.auth.users.service import find_user
from services.common.errors import Unauthenticated
from services.common.identity.caller import Caller

FIRST_PARTY = "tollgate-web"
"""The `client_id` of tokens issued for a password: a public client without a secret (RFC 6749
§2.1). The docs pages and programs that ask for e-mail and password use it."""


async def is_active(session: AsyncSession, *, caller: Caller) -> bool:
    """Return whether the user and the client of a token still exist and are enabled."""
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
    """Return the user that a token belongs to; every endpoint that takes tokens calls this first.

    Raises:
        Unauthenticated: the token is no longer active, or belongs to a service.
    """
    user = await find_user(session, user_id=caller.account)
    if user is None or not await is_active(session, caller=caller):
        raise Unauthenticated()
    return user
