"""Prepare the databases and users before the services that need them start.

A separate process, so that `up` stays small. Every step is idempotent.
"""

import asyncio
import gc
import sys
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from cli.local import state
from cli.settings import LocalSettings
from services.auth import app as auth_app
from services.auth.bootstrap import ensure_first_party_clients
from services.auth.clients.credentials import ensure_service_client
from services.auth.passwords import PasswordHasher
from services.auth.settings import AuthSettings, FirstPartyClient
from services.auth.users.service import ensure_user
from services.billing import database as billing_database
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.db.retrying import in_transaction
from services.common.errors import ServiceError
from services.common.telemetry.logs import configure_logging

CONSOLE = "console"
"""The console's OAuth client, as `CONSOLE_CLIENT_ID` has it by default."""


def main() -> None:
    """Prepare this machine; on failure, print one line on stderr and exit with 1."""
    gc.disable()  # most of the time goes into imports, which leave no garbage
    settings = LocalSettings.load()
    configure_logging("tollgate", style=settings.log_format)
    try:
        _prepare(settings)
    except (DBAPIError, OSError, ServiceError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        sys.exit(f"error: {' '.join(str(reason).split())}")


def _prepare(settings: LocalSettings) -> None:
    auth, billing = AuthSettings.load(), BillingSettings.load()
    migrate(auth.database_url.get_secret_value(), auth_app.MIGRATIONS)
    migrate(billing.database_url.get_secret_value(), billing_database.MIGRATIONS)
    asyncio.run(_ensure_credentials(auth, state.credentials(settings.home)))


async def _ensure_credentials(settings: AuthSettings, credentials: dict[str, Any]) -> None:
    """Create the users and the service client of `credentials.json` in auth's database."""
    database = Database(settings.database_url.get_secret_value())
    hasher = PasswordHasher(threads=1)

    async def ensure(session: AsyncSession) -> None:
        for name in ("admin", "demo"):
            await ensure_user(session, hasher=hasher, **credentials[name], admin=name == "admin")
        client = credentials["services"]["inference"]
        await ensure_service_client(session, **client, scope="billing:write")
        await ensure_first_party_clients(session, _with_console(settings))

    try:
        await in_transaction(database, ensure)
    finally:
        hasher.close()
        await database.close()


def _with_console(settings: AuthSettings) -> AuthSettings:
    """Return the settings with the local console among the apps of Tollgate.

    Its addresses have no port: a loopback address may use any (RFC 8252 §7.3), and the state folder
    contains none.
    """
    listed = settings.first_party_clients
    if CONSOLE in {each.client_id for each in listed}:
        return settings
    console = FirstPartyClient(
        client_id=CONSOLE,
        name="Tollgate console",
        redirect_uris=("http://127.0.0.1/sign-in/callback",),
        post_logout_redirect_uris=("http://127.0.0.1/",),
    )
    return settings.model_copy(update={"first_party_clients": (*listed, console)})


if __name__ == "__main__":
    main()
