"""The accounts that an installation begins with, where there is nobody yet who could make them."""

import asyncio

from services.auth.accounts.service import ensure_account
from services.auth.clients.service import ensure_service_client
from services.auth.passwords import PasswordHasher
from services.auth.settings import AuthSettings
from services.common.db import Database
from services.common.errors import BodyInvalid, ServiceError
from services.common.settings import exit_with_error


def ensure_first_accounts(settings: AuthSettings) -> None:
    """Have the administrator and the inference service's client, as far as both halves are given.

    Blocking; safe to repeat, and to run in several processes at once.

    Raises:
        SystemExit: an e-mail or password is not taken, or the database is away; one line says why.
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
                await ensure_account(
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
