"""Check that a verified token is still active, which its signature alone cannot show."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.clients.credentials import find_client
from services.auth.models import User
from services.auth.organisations.memberships import find_account
from services.auth.revocations.service import is_token_revoked
from services.auth.users.service import find_user
from services.common.db.database import Transaction
from services.common.errors import InsufficientScope, ServiceError, Unauthenticated
from services.common.identity.caller import Caller
from services.common.identity.guards import AnyCaller, RequireScope

FIRST_PARTY = "tollgate-web"
"""The `client_id` of tokens issued for a password: a public client without a secret (RFC 6749
§2.1). The docs pages and programs that ask for e-mail address and password use it."""


class LoginNeeded(ServiceError):
    """A machine client or an app cannot do this, so that a stolen secret or token gives no more
    than its scope."""

    status = 403
    code = "login_needed"
    detail = (
        "A token from a sign-in with e-mail address and password, or from the console, is required."
    )


async def is_active(session: AsyncSession, *, caller: Caller) -> bool:
    """Return whether a token is not revoked, its user and client exist and are enabled, and the
    user may still act for its account."""
    if caller.token_id is None or await is_token_revoked(session, token_id=caller.token_id):
        return False
    if caller.client_id != FIRST_PARTY:
        client = await find_client(session, client_id=caller.client_id)
        if client is None or client.has_expired(datetime.now(UTC)):
            return False
        if _is_outdated(caller, client.tokens_from):
            return False
        if client.owner_id is not None and await _find_enabled(session, client.owner_id) is None:
            return False
        if client.type == "confidential":
            return caller.account == (client.account_id or client.client_id)
    user = await _find_enabled(session, caller.author)
    if user is None:
        return False
    account = await find_account(session, user=user, account_id=caller.account)
    return account is not None and not _is_outdated(caller, account.tokens_from)


async def _find_enabled(session: AsyncSession, user_id: str) -> User | None:
    user = await find_user(session, user_id=user_id)
    return None if user is None or user.disabled_at is not None else user


def _is_outdated(caller: Caller, tokens_from: datetime | None) -> bool:
    return tokens_from is not None and caller.issued_at < tokens_from.timestamp()


async def check_active(session: AsyncSession, *, caller: Caller) -> None:
    """Check that a token is still active.

    Raises:
        Unauthenticated: it is not.
    """
    if not await is_active(session, caller=caller):
        raise Unauthenticated()


async def get_user(session: AsyncSession, *, caller: Caller) -> User:
    """Return the user that a token belongs to; every endpoint that takes tokens calls this,
    `find_creator` or `check_active` first.

    Raises:
        Unauthenticated: the token is no longer active, or belongs to a service.
        LoginNeeded: it belongs to an organisation's client.
    """
    user = await find_creator(session, caller=caller)
    if user is None:
        raise Unauthenticated() if caller.account == caller.client_id else LoginNeeded()
    return user


async def find_creator(session: AsyncSession, *, caller: Caller) -> User | None:
    """Return the user who creates something with a token; None for an organisation's client.

    Raises:
        Unauthenticated: the token is no longer active.
    """
    await check_active(session, caller=caller)
    return await find_user(session, user_id=caller.author)


async def refuse_apps(session: AsyncSession, *, caller: Caller) -> None:
    """Refuse tokens of other people's apps, for data that no scope covers.

    Raises:
        LoginNeeded: the token was issued to an app that is not part of Tollgate.
    """
    if caller.client_id != FIRST_PARTY:
        client = await find_client(session, client_id=caller.client_id)
        if client is None or (client.type == "public" and not client.is_first_party):
            raise LoginNeeded()


async def get_user_without_app(session: AsyncSession, *, caller: Caller) -> User:
    """Return the user whom a token belongs to, for data that no scope covers.

    Raises:
        Unauthenticated: the token is no longer active, or belongs to a service.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
    """
    user = await get_user(session, caller=caller)
    await refuse_apps(session, caller=caller)
    return user


async def get_person(session: AsyncSession, *, caller: Caller) -> User:
    """Return the user who signed in themselves, not through a machine client or another's app.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: it was issued to a machine client, or to an app that is not part of Tollgate.
    """
    user = await get_user(session, caller=caller)
    if caller.client_id != FIRST_PARTY:
        client = await find_client(session, client_id=caller.client_id)
        if client is None or not client.is_first_party:
            raise LoginNeeded()
    return user


async def _person(caller: AnyCaller, session: Transaction) -> User:
    return await get_person(session, caller=caller)


Person = Annotated[User, Depends(_person, scope="function")]
"""The calling user, in the transaction of the request."""


async def get_admin(session: AsyncSession, *, caller: Caller) -> User:
    """Return the administrator that a token with the scope `admin` belongs to.

    Raises:
        Unauthenticated: the token is no longer active.
        InsufficientScope: the user is no longer an administrator.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
    """
    user = await get_user(session, caller=caller)
    if not user.is_admin:
        raise InsufficientScope("admin")
    await refuse_apps(session, caller=caller)
    return user


class _RequireAdmin(RequireScope):
    """Rejects tokens that are no longer active (401) before those without the scope (403)."""

    def __init__(self) -> None:
        super().__init__("admin")
        self._any = RequireScope()

    async def __call__(self, request: Request) -> Caller:
        caller = await self._any(request)
        async with request.app.state.database.snapshot() as session:
            user = await get_user(session, caller=caller)
            if "admin" not in caller.scopes or not user.is_admin:
                raise InsufficientScope("admin")
            await refuse_apps(session, caller=caller)
        return caller


REQUIRE_ADMIN = Depends(_RequireAdmin())
"""A dependency of routes that only administrators may read."""
AdminCaller = Annotated[Caller, REQUIRE_ADMIN]
"""The caller of a route that administrators write by; it calls `get_admin` in its transaction."""
