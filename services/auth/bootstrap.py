"""Create the first users and clients of an installation, which has no administrator yet."""

import asyncio

from services.auth.clients.credentials import ensure_service_client
from services.auth.passwords import PasswordHasher
from services.auth.settings import AuthSettings
from services.auth.users.service import ensure_user
from services.common.db.database import Database
from services.common.errors import BodyInvalid, ServiceError
from services.common.settings import exit_with_error


def create_first_users(settings: AuthSettings) -> None:
    """Create or update the administrator and inference's client if the settings include them.

    Blocking; safe to repeat and to run in several processes at once.

    Raises:
        SystemExit: invalid e-mail or password, or the database is unavailable; one line on stderr
            says why.
    """
    try:
        asyncio.run(_ensure(settings))
    except BodyInvalid as error:
        problem = error.extra["errors"][0]
        exit_with_error(f"AUTH_ADMIN_{problem['loc'][-1].upper()}: {problem['msg']}")
    except ServiceError as error:
        exit_with_error(f"AUTH_DATABASE_URL: {error.detail}")


async def _ensure(settings: AuthSettings) -> None:
    password = settings.admin_password.get_secret_value()
    secret = settings.inference_client_secret.get_secret_value()
    database = Database(settings.database_url.get_secret_value())
    hasher = PasswordHasher(threads=1)
    try:
        async with database.transaction() as session:
            if settings.admin_email and password:
                await ensure_user(
                    session,
                    hasher=hasher,
                    email=settings.admin_email,
                    password=password,
                    admin=True,
                )
            if settings.inference_client_id and secret:
                await ensure_service_client(
                    session,
                    client_id=settings.inference_client_id,
                    client_secret=secret,
                    scope="billing:write",
                )
    finally:
        hasher.close()
        await database.close()
