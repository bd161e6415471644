"""Manage the OAuth clients of a user: credentials for programs."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.callers import get_person, get_user
from services.auth.clients import repository
from services.auth.clients.credentials import secret_digest
from services.auth.models import Client
from services.auth.revocations.service import publish
from services.auth.users.service import allowed_scope
from services.common.errors import BodyInvalid, NotFound, ServiceError, Unauthenticated
from services.common.identity.caller import Caller

MAX_CLIENTS = 100
"""Maximum number of clients of a user."""


class TooManyClients(ServiceError):
    """The user already has the maximum number of clients."""

    status = 409
    code = "too_many_clients"
    detail = f"A user can have at most {MAX_CLIENTS} clients; delete one first."


async def create_client(
    session: AsyncSession,
    *,
    caller: Caller,
    name: str,
    scope: str | None,
    expires_at: datetime | None,
    address: str,
) -> tuple[Client, str]:
    """Create a client of the calling user; return it and its secret, which is not stored.

    Args:
        scope: the scopes that its tokens may have; default those of every user.
        address: where the request came from.

    Raises:
        LoginNeeded: the caller is a machine client.
        Unauthenticated: the token is no longer active.
        BodyInvalid: the user lacks a scope, or `expires_at` is in the past.
        TooManyClients: the user already has `MAX_CLIENTS` clients.
    """
    owner = await get_person(session, caller=caller)
    requested = (scope or "predict usage:read").split()
    now = datetime.now(UTC)
    if not set(requested) <= set(allowed_scope(owner).split()):
        raise BodyInvalid([{"loc": ["body", "scope"], "msg": "You do not have this scope."}])
    if expires_at is not None and expires_at <= now:
        raise BodyInvalid([{"loc": ["body", "expires_at"], "msg": "Must not be in the past."}])
    if len(await repository.list_clients(session, owner_id=owner.id)) >= MAX_CLIENTS:
        raise TooManyClients()
    secret = f"tgs_{secrets.token_urlsafe(32)}"
    client = Client(
        client_id=f"tgc_{secrets.token_hex(12)}",
        owner_id=owner.id,
        name=name,
        secret_sha256=secret_digest(secret),
        scope=" ".join(dict.fromkeys(requested)),
        created_at=now,
        expires_at=expires_at,
    )
    if not await repository.add_client(session, client):
        raise Unauthenticated()  # the owner was deleted meanwhile
    await record(
        session, "client_created", actor=owner.id, target=client.client_id, address=address
    )
    return client, secret


async def list_clients(session: AsyncSession, *, caller: Caller) -> Sequence[Client]:
    """Return the calling user's clients, oldest first.

    Raises:
        Unauthenticated: the token is no longer active.
    """
    owner = await get_user(session, caller=caller)
    return await repository.list_clients(session, owner_id=owner.id)


async def delete_client(
    session: AsyncSession, *, caller: Caller, client_id: str, address: str
) -> None:
    """Delete a client, and revoke its tokens.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: the caller is a machine client.
        NotFound: the client does not exist or belongs to another user.
    """
    owner = await get_person(session, caller=caller)
    if not await repository.delete_client(session, owner_id=owner.id, client_id=client_id):
        raise NotFound()
    await record(session, "client_deleted", actor=owner.id, target=client_id, address=address)
    await publish(session, ("client", client_id))
