"""Machine credentials: a user's API keys, and the services' own."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.accounts.service import allowed_scope
from services.auth.callers import FIRST_PARTY, get_user
from services.auth.clients import repository
from services.auth.models import Client
from services.common.errors import BodyInvalid, NotFound, ServiceError
from services.common.identity import Caller

MAX_CLIENTS = 100
"""How many clients a user may have."""


class LoginNeeded(ServiceError):
    """A machine client cannot manage machine clients: a stolen key must not outlive its end."""

    status = 403
    code = "login_needed"
    detail = "This needs a token from a log-in with e-mail and password."


class TooManyClients(ServiceError):
    """The account has as many clients as it may have."""

    status = 409
    code = "too_many_clients"
    detail = f"An account has at most {MAX_CLIENTS} clients; delete one first."


def secret_digest(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits, so a plain hash cannot be reversed."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_client(
    session: AsyncSession,
    *,
    caller: Caller,
    name: str,
    scope: str | None,
    expires_at: datetime | None,
) -> tuple[Client, str]:
    """Make a client of the caller's account, and its secret, which is shown this once.

    Args:
        scope: the most its tokens may be granted; without one, what every user may do.

    Raises:
        LoginNeeded: the caller is a machine client itself.
        Unauthenticated: the token is no longer active.
        BodyInvalid: a scope the account does not have, or an end in the past.
        TooManyClients: the account has `MAX_CLIENTS` already.
    """
    owner = await get_user(session, caller=caller)
    _refuse_machines(caller)
    asked = (scope or "predict usage:read").split()
    now = datetime.now(UTC)
    if not set(asked) <= set(allowed_scope(owner).split()):
        raise BodyInvalid([{"loc": ["body", "scope"], "msg": "The account does not have this."}])
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
        scope=" ".join(dict.fromkeys(asked)),
        created_at=now,
        expires_at=expires_at,
    )
    await repository.add_client(session, client)
    return client, secret


async def list_clients(session: AsyncSession, *, caller: Caller) -> Sequence[Client]:
    """Return the clients of the caller's account, oldest first.

    Raises:
        Unauthenticated: the token is no longer active.
    """
    owner = await get_user(session, caller=caller)
    return await repository.list_clients(session, owner_id=owner.id)


async def delete_client(session: AsyncSession, *, caller: Caller, client_id: str) -> None:
    """Delete a client. Auth refuses its tokens at once, the other services when they expire.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: the caller is a machine client itself.
        NotFound: no such client, or another account's.
    """
    owner = await get_user(session, caller=caller)
    _refuse_machines(caller)
    if not await repository.delete_client(session, owner_id=owner.id, client_id=client_id):
        raise NotFound()


def _refuse_machines(caller: Caller) -> None:
    if caller.client_id != FIRST_PARTY:
        raise LoginNeeded()


async def find_authentic_client(
    session: AsyncSession, *, client_id: str, client_secret: str
) -> Client | None:
    """The client whose credentials these are, unless they have expired."""
    client = await repository.find_client(session, client_id=client_id)
    stored = client.secret_sha256 if client else ""
    if not hmac.compare_digest(secret_digest(client_secret), stored) or client is None:
        return None
    return None if client.has_expired(datetime.now(UTC)) else client


async def ensure_service_client(
    session: AsyncSession, *, client_id: str, client_secret: str, scope: str
) -> Client:
    """Have an owner-less client with exactly this secret and scope, whatever was there before.

    For operators; safe to repeat, and to run in several processes at once.
    """
    client = Client(
        client_id=client_id,
        owner_id=None,
        name=client_id,
        secret_sha256=secret_digest(client_secret),
        scope=scope,
        created_at=datetime.now(UTC),
        expires_at=None,
    )
    if await repository.add_client(session, client):
        return client
    existing = await repository.get_client(session, client_id=client_id)
    existing.owner_id, existing.expires_at = None, None
    existing.secret_sha256, existing.scope = client.secret_sha256, scope
    await session.flush()
    return existing
