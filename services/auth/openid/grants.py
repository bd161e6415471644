"""Issue tokens to an app that a person has signed in to."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import RefreshFamily, User
from services.auth.openid.id_tokens import issue_id_token
from services.auth.organisations.memberships import Account
from services.auth.tokens.service import IssuedToken, Issuer, issue_in_family, open_family


async def issue_to_app(
    session: AsyncSession,
    issuer: Issuer,
    *,
    user: User,
    account: Account,
    client_id: str,
    scope: str,
    authenticated_at: datetime,
    nonce: str | None = None,
) -> tuple[RefreshFamily, IssuedToken]:
    """Return a new refresh family of a person at an app, and its tokens.

    With the scope `openid`, an ID token is among them.

    Args:
        authenticated_at: when the person signed in.
        nonce: of the app's request.
    """
    family, refresh_token = await open_family(
        session, issuer, user, account, scope, client_id=client_id
    )
    issued = await issue_in_family(session, issuer, user, account, family, scope, refresh_token)
    if "openid" not in scope.split():
        return family, issued
    id_token = issue_id_token(
        issuer,
        user_id=user.id,
        client_id=client_id,
        nonce=nonce,
        authenticated_at=authenticated_at,
        access_token=issued.access_token,
    )
    return family, replace(issued, id_token=id_token)
