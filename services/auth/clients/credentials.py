"""Check the credentials of OAuth clients, of users and of services."""

import hashlib
import hmac
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import OPERATOR, record
from services.auth.clients import repository
from services.auth.models import Client
from services.auth.revocations.service import publish
from services.auth.tokens.logins import end_logins_at


def secret_digest(secret: str, *, organisation_id: str | None = None) -> str:
    """Return the digest to store. A secret has 256 random bits, so a fast hash is enough.

    That of an organisation's client includes the organisation: a pod of the previous version, which
    would take the client for a service's, refuses it.
    """
    scoped = secret if organisation_id is None else f"{organisation_id}:{secret}"
    return hashlib.sha256(scoped.encode()).hexdigest()


async def find_client(session: AsyncSession, *, client_id: str) -> Client | None:
    """Return the client with this id, expired or not."""
    return await repository.find_client(session, client_id=client_id)


def is_authentic(client: Client, *, client_secret: str) -> bool:
    """Return whether a confidential client has this secret and has not expired."""
    digest = secret_digest(client_secret, organisation_id=client.organisation_id)
    is_right = hmac.compare_digest(digest, client.secret_sha256)
    return is_right and not client.has_expired(datetime.now(UTC))


async def is_usable_app(session: AsyncSession, client: Client) -> bool:
    """Return whether people may give a client tokens: a public one, whose owner is enabled."""
    if client.type != "public" or client.has_expired(datetime.now(UTC)):
        return False
    is_owned = client.is_first_party or client.account_id is not None
    return is_owned and await repository.is_owner_enabled(session, client)


async def list_clients_of(session: AsyncSession, *, account_id: str) -> Sequence[Client]:
    """Return an account's clients, oldest first."""
    return await repository.list_clients(session, account_id=account_id)


async def ensure_service_client(
    session: AsyncSession, *, client_id: str, client_secret: str, scope: str
) -> Client:
    """Create or update a client without an owner, with exactly this secret and scope.

    Changing the secret revokes the client's tokens.
    For operators; safe to repeat and to run in several processes at once.
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
        await record(session, "client_created", actor=OPERATOR, target=client_id)
        return client
    existing = await repository.get_client(session, client_id=client_id)
    intended = (None, None, client.secret_sha256, scope)
    if intended != (
        existing.owner_id,
        existing.expires_at,
        existing.secret_sha256,
        existing.scope,
    ):
        await record(session, "client_updated", actor=OPERATOR, target=client_id)
    if existing.secret_sha256 != client.secret_sha256:
        existing.tokens_from = await publish(session, ("client", client_id))
    existing.owner_id, existing.expires_at, existing.secret_sha256, existing.scope = intended
    await session.flush()
    return existing


async def ensure_first_party_client(
    session: AsyncSession,
    *,
    client_id: str,
    name: str,
    scope: str,
    redirect_uris: Sequence[str],
    post_logout_redirect_uris: Sequence[str],
) -> Client:
    """Create or update a public client that is part of Tollgate, with exactly these properties.

    For operators; safe to repeat and to run in several processes at once.
    """
    addresses = " ".join(redirect_uris), " ".join(post_logout_redirect_uris)
    client = Client(
        client_id=client_id,
        owner_id=None,
        name=name,
        secret_sha256="",
        scope=scope,
        created_at=datetime.now(UTC),
        expires_at=None,
        redirect_addresses=addresses[0],
        logout_addresses=addresses[1],
        is_first_party=True,
    )
    if await repository.add_client(session, client):
        await record(session, "client_created", actor=OPERATOR, target=client_id)
        return client
    existing = await repository.get_client(session, client_id=client_id)
    fixed = ("owner_id", "secret_sha256", "scope", "redirect_addresses", "logout_addresses")
    intended = {each: getattr(client, each) for each in (*fixed, "name", "is_first_party")}
    if any(getattr(existing, each) != value for each, value in intended.items()):
        await record(session, "client_updated", actor=OPERATOR, target=client_id)
    for each, value in intended.items():
        setattr(existing, each, value)
    await session.flush()
    return existing


async def delete_first_party_clients(session: AsyncSession, *, except_for: Collection[str]) -> None:
    """Delete the public clients that are no longer part of Tollgate, and end sign-ins at them.

    For operators; safe to repeat and to run in several processes at once.

    Args:
        except_for: ids of the clients that still are.
    """
    for client_id in await repository.list_first_party(session):
        if client_id in except_for:
            continue
        if await repository.delete_first_party(session, client_id=client_id):
            await end_logins_at(session, client_id=client_id)
            await publish(session, ("client", client_id))
            await record(session, "client_deleted", actor=OPERATOR, target=client_id)
