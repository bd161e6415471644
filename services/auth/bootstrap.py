"""Create the first users and clients of an installation, which has no administrator yet."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.clients.credentials import (
    delete_first_party_clients,
    ensure_first_party_client,
    ensure_service_client,
)
from services.auth.passwords import PasswordHasher
from services.auth.roles import PERSONAL, scopes_of
from services.auth.settings import AuthSettings, FirstPartyClient
from services.auth.users.service import ensure_user
from services.common.contracts import COMMAND_CLIENT
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import BodyInvalid, ServiceError
from services.common.settings import exit_with_error

FIRST_PARTY_SCOPE = scopes_of(PERSONAL, is_admin=True)
"""What the tokens of an app of Tollgate may have; each person gets only their own scopes of it."""


def create_first_users(settings: AuthSettings) -> None:
    """Create or update the administrator and the clients that the settings include.

    Blocking; safe to repeat and to run in several processes at once.

    Raises:
        SystemExit: invalid address or password, or the database is unavailable; one line on stderr
            says why.
    """
    try:
        asyncio.run(_ensure(settings))
    except BodyInvalid as error:
        problem = error.extra["errors"][0]
        exit_with_error(f"AUTH_ADMIN_{problem['loc'][-1].upper()}: {problem['msg']}")
    except ServiceError as error:
        exit_with_error(f"AUTH_DATABASE_URL: {error.detail}")


async def ensure_first_party_clients(session: AsyncSession, settings: AuthSettings) -> None:
    """Create or update the apps of the settings, and the `tollgate` command; delete earlier ones.

    Safe to repeat and to run in several processes at once.
    """
    command = FirstPartyClient(client_id=COMMAND_CLIENT, name="Tollgate command line")
    listed = (command, *settings.first_party_clients)
    await delete_first_party_clients(session, except_for={each.client_id for each in listed})
    for each in listed:
        await ensure_first_party_client(
            session,
            client_id=each.client_id,
            name=each.name or each.client_id,
            scope=FIRST_PARTY_SCOPE,
            redirect_uris=each.redirect_uris,
            post_logout_redirect_uris=each.post_logout_redirect_uris,
        )


async def _ensure(settings: AuthSettings) -> None:
    password = settings.admin_password.get_secret_value()
    secret = settings.inference_client_secret.get_secret_value()
    database = Database(settings.database_url.get_secret_value())
    hasher = PasswordHasher(threads=1)

    async def ensure(session: AsyncSession) -> None:
        if settings.admin_email and password:
            await ensure_user(
                session, hasher=hasher, email=settings.admin_email, password=password, admin=True
            )
        await ensure_first_party_clients(session, settings)
        if settings.inference_client_id and secret:
            await ensure_service_client(
                session,
                client_id=settings.inference_client_id,
                client_secret=secret,
                scope="billing:write",
            )

    try:
        await in_transaction(database, ensure)
    finally:
        hasher.close()
        await database.close()
