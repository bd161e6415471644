"""The account that a person signs in to an app for."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import User
from services.auth.openid.errors import AuthorizationError
from services.auth.organisations.memberships import Account, find_account


async def choose_account(session: AsyncSession, *, user: User, account: str | None) -> Account:
    """Return the account that a request names, by default the person's own.

    Raises:
        AuthorizationError: the person has no such account.
    """
    chosen = await find_account(session, user=user, account_id=account)
    if chosen is None:
        raise AuthorizationError("access_denied", "The user has no such account.")
    return chosen
