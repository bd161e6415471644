"""The composition root of the auth service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from services.auth.api_keys.router import router as api_keys
from services.auth.audit.failures import FailureLog
from services.auth.audit.rejections import note_rejected
from services.auth.audit.rejections_router import router as rejections
from services.auth.audit.router import router as audit
from services.auth.audit.service import seal, store_failures
from services.auth.clients.reader import ClientReader
from services.auth.clients.router import router as clients
from services.auth.discovery import discovery_router
from services.auth.keys import KeyRing, read_folder
from services.auth.links.service import delete_expired_links
from services.auth.mail.delivery import Post, deliver_due
from services.auth.mail.transports import open_transport
from services.auth.notes.router import router as notes
from services.auth.openid.browsers import StaleFormError, show_stale_form
from services.auth.openid.device_router import router as devices
from services.auth.openid.devices import delete_expired_devices
from services.auth.openid.logout_router import router as logout
from services.auth.openid.router import router as openid
from services.auth.openid.service import delete_expired_codes
from services.auth.organisations.router import router as organisations
from services.auth.pages.router import router as pages
from services.auth.passwords import MEMORY_KIB, PasswordHasher
from services.auth.providers.client import ProviderClient
from services.auth.providers.router import router as providers
from services.auth.revocations.router import router as revocations
from services.auth.revocations.service import RevocationFeed
from services.auth.sessions.cookies import BrowserCookie
from services.auth.sessions.service import delete_expired_sessions
from services.auth.settings import AuthSettings
from services.auth.signing.schedule import RELOAD_S
from services.auth.signing.service import KeyKeeper
from services.auth.signing.vault import Vault
from services.auth.tokens.errors import refuse
from services.auth.tokens.router import router as tokens
from services.auth.tokens.service import Issuer, delete_expired, login_counter
from services.auth.users.admin_router import router as user_administration
from services.auth.users.mailed_router import router as mailed
from services.auth.users.profile import PasswordChanger
from services.auth.users.profile_router import router as profile
from services.auth.users.router import router as users
from services.common.db.database import DEADLINE_S, Database
from services.common.db.schema import SchemaCheck
from services.common.errors import Unavailable
from services.common.http.addresses import public_addresses
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.common.http.methods import Cors
from services.common.identity.tokens import TokenVerifier
from services.common.settings import exit_with_error
from services.common.tasks import end_tasks
from services.common.telemetry.requests import log

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

MIGRATIONS = Path(__file__).parent / "migrations"
MAX_BODY_BYTES = 16 * 1024
_CLEANUP_INTERVAL_S = 300
_SEAL_INTERVAL_S = 1
_MAIL_INTERVAL_S = 1
_RETRY_INTERVAL_S = 10


def create_app(
    settings: AuthSettings,
    *,
    tracing: "Tracing | None" = None,
    password_memory_kib: int = MEMORY_KIB,
    database_deadline_s: float = DEADLINE_S,
) -> FastAPI:
    """Create the app; this reads the operator's own signing keys.

    Args:
        tracing: creates a span for each request; closed after the lifespan.
        password_memory_kib: memory of argon2id for each password; only tests use less.
        database_deadline_s: seconds that a unit of work may take before it fails with 503.

    Raises:
        SystemExit: these keys are unavailable; one line on stderr says why.
    """
    keys, vault = KeyRing(), Vault(settings.passphrases)
    try:
        given = read_folder(settings.signing_keys, passphrases=settings.passphrases)
    except OSError as error:
        exit_with_error(f"AUTH_SIGNING_KEYS: {settings.signing_keys}: {error.strerror}")
    except ValueError as error:
        exit_with_error(f"AUTH_SIGNING_KEYS: {error}")

    failures = FailureLog()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = settings.database_url.get_secret_value()
        database = Database(url, deadline_s=database_deadline_s, tracing=tracing)
        # With connections of its own, many sign-ins at once cannot starve what runs in background.
        background = Database(url, deadline_s=database_deadline_s)
        hasher = PasswordHasher(
            threads=settings.password_threads,
            queue=settings.password_queue,
            memory_kib=password_memory_kib,
        )
        verifier = TokenVerifier(keys, issuer=settings.issuer)
        keeper = KeyKeeper(
            background,
            vault,
            keys,
            given=given,
            max_age=settings.signing_key_age,
            on_withdrawal=verifier.forget,
        )
        app.state.database = database
        app.state.hasher = hasher
        app.state.verifier = verifier
        app.state.registration = settings.registration
        app.state.console_url = settings.console_public_url
        app.state.issuer = Issuer(
            database=database,
            hasher=hasher,
            keys=keys,
            verifier=verifier,
            settings=settings,
            logins=app.state.logins,
            failures=failures,
            vault=vault,
            clients=ClientReader(database),
        )
        app.state.revocation_feed = RevocationFeed(database)
        app.state.password_changer = PasswordChanger(
            database, hasher, settings.guess_limits, failures
        )
        provider_http = http_client()
        app.state.providers = ProviderClient(
            provider_http, settings.providers, callback=f"{settings.issuer}/sign-in/callback"
        )
        post = Post(
            background,
            open_transport(settings.mail_url.get_secret_value(), folder=settings.home / "mail"),
            sender=settings.mail_from,
            pages_url=settings.pages_url,
        )
        app.state.post = post
        app.state.vault = vault
        app.state.checks = {
            "database": SchemaCheck(database, MIGRATIONS),
            "signing_keys": keeper.check,
        }

        async def audit_once() -> None:
            await store_failures(background, failures)
            last = await seal(background)
            if last is not None:
                # A copy of the logs proves later how the chain ended at this time.
                log.info("audit_sealed", last_id=last.id, last_hash=last.hash)

        with suppress(Unavailable, SQLAlchemyError):  # then the service starts, but is not ready
            await keeper.refresh()
        async with (
            _repeating(keeper.refresh, "signing_keys", interval_s=RELOAD_S),
            _repeating(lambda: _clean_up(background), "cleanup", interval_s=_CLEANUP_INTERVAL_S),
            _repeating(lambda: deliver_due(post), "mail", interval_s=_MAIL_INTERVAL_S),
            _repeating(audit_once, "audit", interval_s=_SEAL_INTERVAL_S),
        ):
            yield
        with suppress(Unavailable, SQLAlchemyError):
            await store_failures(background, failures)
        await provider_http.aclose()
        hasher.close()
        await background.close()
        await database.close()

    app = service_app(
        title="Tollgate auth",
        description="Users, machine credentials and the tokens that the other services accept.",
        token_url=f"{settings.issuer}/token",
        addresses=public_addresses(settings, issuer=settings.issuer),
        lifespan=lifespan,
        max_body_bytes=MAX_BODY_BYTES,
        refuse=refuse,
        observe=note_rejected,
        cors=Cors(
            origins=settings.cors_origins,
            methods=["POST"],
            headers=["Authorization", "Content-Type", "X-Requested-With"],
            path="/token",  # lets docs pages of other origins sign in
        ),
        tracing=tracing,
    )
    app.state.browser_cookie = BrowserCookie(secure=settings.issuer.startswith("https:"))
    app.state.failures = failures
    app.state.logins = login_counter(app.state.metrics.registry)
    app.exception_handler(StaleFormError)(show_stale_form)
    app.include_router(tokens)  # first, because routes are tried in order
    app.include_router(users)
    app.include_router(profile)
    app.include_router(mailed)
    app.include_router(user_administration)
    app.include_router(organisations)
    app.include_router(notes)
    app.include_router(pages)
    app.include_router(openid)
    app.include_router(logout)
    app.include_router(devices)
    app.include_router(providers)
    app.include_router(clients)
    app.include_router(api_keys)
    app.include_router(revocations)
    app.include_router(audit)
    app.include_router(rejections)
    names = [each.name for each in settings.providers]
    app.include_router(discovery_router(issuer=settings.issuer, keys=keys, providers=names))
    return app


async def _clean_up(database: Database) -> None:
    await delete_expired(database)
    async with database.transaction() as session:
        now = datetime.now(UTC)
        await delete_expired_links(session, now=now)
        await delete_expired_sessions(session, now=now)
        await delete_expired_codes(session, now=now)
        await delete_expired_devices(session, now=now)


@asynccontextmanager
async def _repeating(
    work: Callable[[], Awaitable[None]], name: str, *, interval_s: float
) -> AsyncIterator[None]:
    """Do something at regular intervals until the block ends; every replica does this."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await work()
            except (Unavailable, SQLAlchemyError) as error:
                log.warning(f"{name}_failed", reason=str(error))
                await asyncio.sleep(_RETRY_INTERVAL_S)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        await end_tasks([task])
