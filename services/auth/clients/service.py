"""Manage the OAuth clients of an account: credentials for programs, and apps to sign in to."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.callers import find_creator, get_person, refuse_apps
from services.auth.clients import repository
from services.auth.clients.credentials import secret_digest
from services.auth.models import Client, User
from services.auth.organisations.memberships import find_account
from services.auth.revocations.service import publish
from services.auth.roles import PLATFORM_ADMIN
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    ServiceError,
    Unauthenticated,
)
from services.common.identity.caller import Caller

MAX_CLIENTS = 100
"""Maximum number of clients of an account."""
MANAGE = "keys:write"
"""The scope that managing an organisation's clients needs."""


@dataclass(frozen=True, slots=True)
class ClientAddresses:
    """Where a public client may send people back to."""

    redirect_uris: Sequence[str]
    post_logout_redirect_uris: Sequence[str] = ()


class TooManyClients(ServiceError):
    """The account already has the maximum number of clients."""

    status = 409
    code = "too_many_clients"
    detail = f"An account can have at most {MAX_CLIENTS} clients; delete one first."


async def create_client(
    session: AsyncSession,
    *,
    caller: Caller,
    name: str,
    scope: str | None,
    expires_at: datetime | None,
    addresses: ClientAddresses | None = None,
    address: str,
) -> tuple[Client, str | None]:
    """Create a client of the caller's account; return it and its secret, which is not stored.

    An organisation's client stays when its creator leaves.

    Args:
        scope: the scopes that its tokens may have; default those of every user.
        addresses: those of a public client, which has no secret; None for a confidential client.
        address: where the request came from.

    Raises:
        LoginNeeded: the caller is a machine client.
        Unauthenticated: the token is no longer active.
        InsufficientScope: it is for an organisation, and lacks the scope `MANAGE`.
        BodyInvalid: the user or the token lacks a scope, or `expires_at` is in the past.
        TooManyClients: the account already has `MAX_CLIENTS` clients.
    """
    owner = await _get_manager(session, caller=caller)
    account = await find_account(session, user=owner, account_id=caller.account)
    is_personal = caller.account == owner.id
    allowed = set(account.scope.split()) & caller.scopes if account else set()
    requested = (scope or "predict usage:read").split()
    now = datetime.now(UTC)
    if not set(requested) <= (allowed if is_personal else allowed - {PLATFORM_ADMIN}):
        raise BodyInvalid([{"loc": ["body", "scope"], "msg": "You do not have this scope."}])
    if expires_at is not None and expires_at <= now:
        raise BodyInvalid([{"loc": ["body", "expires_at"], "msg": "Must not be in the past."}])
    if len(await repository.list_clients(session, account_id=caller.account)) >= MAX_CLIENTS:
        raise TooManyClients()
    secret = f"tgs_{secrets.token_urlsafe(32)}" if addresses is None else None
    organisation_id = None if is_personal else caller.account
    client = Client(
        client_id=f"tgc_{secrets.token_hex(12)}",
        owner_id=owner.id if is_personal else None,
        organisation_id=organisation_id,
        name=name,
        secret_sha256=secret_digest(secret, organisation_id=organisation_id) if secret else "",
        scope=" ".join(dict.fromkeys(requested)),
        created_at=now,
        expires_at=expires_at,
    )
    if addresses is not None:
        client.redirect_addresses = " ".join(addresses.redirect_uris)
        client.logout_addresses = " ".join(addresses.post_logout_redirect_uris)
    if not await repository.add_client(session, client):
        raise Unauthenticated()  # the owner was deleted meanwhile
    await record(
        session, "client_created", actor=owner.id, target=client.client_id, address=address
    )
    return client, secret


async def list_clients(session: AsyncSession, *, caller: Caller) -> Sequence[Client]:
    """Return the clients of the caller's account, oldest first.

    Raises:
        Unauthenticated: the token is no longer active, or belongs to a service.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
        InsufficientScope: it is for an organisation, and lacks the scope `MANAGE`.
    """
    user = await find_creator(session, caller=caller)
    if caller.account == caller.client_id:
        raise Unauthenticated()
    await refuse_apps(session, caller=caller)
    _check_scope(caller, user)
    return await repository.list_clients(session, account_id=caller.account)


async def delete_client(
    session: AsyncSession, *, caller: Caller, client_id: str, address: str
) -> None:
    """Delete a client, and revoke its tokens.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: the caller is a machine client.
        InsufficientScope: the token is for an organisation, and lacks the scope `MANAGE`.
        NotFound: the client does not exist or belongs to another account.
    """
    owner = await _get_manager(session, caller=caller)
    if not await repository.delete_client(session, account_id=caller.account, client_id=client_id):
        raise NotFound()
    await record(session, "client_deleted", actor=owner.id, target=client_id, address=address)
    await publish(session, ("client", client_id))


async def _get_manager(session: AsyncSession, *, caller: Caller) -> User:
    user = await get_person(session, caller=caller)
    _check_scope(caller, user)
    return user


def _check_scope(caller: Caller, user: User | None) -> None:
    is_personal = user is not None and user.id == caller.account
    if not is_personal and MANAGE not in caller.scopes:
        raise InsufficientScope(MANAGE)
