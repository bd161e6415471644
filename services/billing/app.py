"""The billing service's application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from fastapi import FastAPI

from services.billing.archives.reading import Archives
from services.billing.archives.retention import ArchiveMetrics, retain_forever
from services.billing.archives.store import ArchiveStore, is_installed
from services.billing.corrections import router as corrections
from services.billing.corrections.recalls import APPLY_EVERY_S, apply_forever
from services.billing.database import MIGRATIONS
from services.billing.events import conflicts_router as conflicts
from services.billing.events import router as events
from services.billing.invoices import router as invoices
from services.billing.invoices.issuing import Books
from services.billing.invoices.pdfs import InvoicePdfs
from services.billing.ledger import credits_router as credits
from services.billing.ledger import leases_router as leases
from services.billing.ledger.reservations import SWEEP_EVERY_S
from services.billing.ledger.sweeper import sweep_forever
from services.billing.plans import router as plans
from services.billing.plans import trials
from services.billing.plans.default import DefaultPlan
from services.billing.receipts import router as receipts
from services.billing.receipts.keys import ReceiptKeys, open_receipt_keys
from services.billing.settings import BillingSettings
from services.billing.sources import router as sources
from services.billing.usage import exports_router as exports
from services.billing.usage import revenue_router as revenue
from services.billing.usage import router as usage
from services.common.db.database import DEADLINE_S, Database
from services.common.db.schema import SchemaCheck
from services.common.http.addresses import public_addresses
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.common.http.methods import Cors
from services.common.identity.auth_client import AuthClient
from services.common.identity.issuer_keys import IssuerKeys, KeySource
from services.common.identity.key_verifier import KeyVerifier
from services.common.identity.rejection_feed import report_rejections
from services.common.identity.rejections import RejectionLog
from services.common.identity.revocation_feed import follow_revocations
from services.common.identity.revocations import Revocations
from services.common.identity.tokens import TokenVerifier
from services.common.settings import exit_with_error
from services.common.tasks import end_tasks

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

MAX_BODY_BYTES = 16 * 1024 * 1024


def create_app(
    settings: BillingSettings,
    *,
    keys: KeySource | None = None,
    tracing: "Tracing | None" = None,
    database_deadline_s: float = DEADLINE_S,
    sweep_every_s: float = SWEEP_EVERY_S,
    recall_every_s: float = APPLY_EVERY_S,
) -> FastAPI:
    """Return the ASGI application; this reads the receipt keys, or creates the first one.

    Args:
        keys: where the keys that verify tokens come from; by default, from the issuer.
        tracing: where spans are recorded; the lifespan closes it.
        database_deadline_s: seconds that a unit of work may take before it fails with 503.
        sweep_every_s: seconds between two sweeps for credit of processes that have ended, and for
            trial credit that is due.
        recall_every_s: seconds between two searches for events to take back.

    Raises:
        SystemExit: the receipt keys or what retention needs are unavailable; one line on stderr
            says why.
    """
    receipt_keys = _open_receipt_keys(settings)
    archives = _open_archives(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with http_client(tracing=tracing) as client:
            issuer = IssuerKeys(client, settings.auth_address)
            auth = _auth_client(client, settings)
            revocations = Revocations()
            rejections = RejectionLog() if auth else None
            api_keys = KeyVerifier(auth.introspect_key, revocations=revocations) if auth else None
            verifier = TokenVerifier(
                keys or issuer,
                issuer=settings.auth_url,
                api_keys=api_keys,
                revocations=revocations,
                rejections=rejections,
            )
            issuer.on_withdrawal = verifier.forget
            database = Database(
                settings.database_url.get_secret_value(),
                deadline_s=database_deadline_s,
                tracing=tracing,
            )
            default_plan = DefaultPlan(database, settings.default_plan)
            app.state.verifier = verifier
            app.state.database = database
            app.state.default_plan = default_plan
            app.state.books = Books(settings.seller, settings.tax_rules)
            app.state.tracing = tracing
            app.state.archives = archives
            app.state.invoice_pdfs = InvoicePdfs()
            app.state.checks = {
                "database": SchemaCheck(database, MIGRATIONS),
                "default_plan": default_plan.check,
            }
            if keys is None:
                app.state.checks["keys"] = issuer.check
            await default_plan.check()
            retaining = retain_forever(
                database,
                archives.store,
                keep_months=settings.retention_months,
                metrics=archive_metrics,
            )
            tasks = [
                asyncio.create_task(sweep_forever(database, every_s=sweep_every_s)),
                asyncio.create_task(apply_forever(database, archives, every_s=recall_every_s)),
                asyncio.create_task(trials.apply_forever(database, every_s=sweep_every_s)),
                asyncio.create_task(retaining),
            ]
            if auth is not None and rejections is not None:
                tasks.append(asyncio.create_task(follow_revocations(auth, verifier)))
                tasks.append(asyncio.create_task(report_rejections(auth, rejections)))
            try:
                yield
            finally:
                await end_tasks(tasks)
                app.state.invoice_pdfs.close()
                await database.close()

    app = service_app(
        title="Tollgate billing",
        description="Usage, plans, leases, receipts and invoices. Amounts are decimal strings.",
        token_url=f"{settings.auth_url}/token",
        addresses=public_addresses(settings, issuer=settings.auth_url),
        lifespan=lifespan,
        max_body_bytes=MAX_BODY_BYTES,
        cors=Cors(
            origins=settings.cors_origins,
            methods=["GET", "POST", "PUT", "DELETE"],
            headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "X-API-Key",
                "X-Request-ID",
            ],
            exposed=["Retry-After", "X-Request-ID"],
        ),
        accepts_api_keys=True,
        tracing=tracing,
    )
    app.state.receipt_keys = receipt_keys
    archive_metrics = ArchiveMetrics(app.state.metrics.registry)
    app.state.event_metrics = events.EventMetrics(app.state.metrics.registry)
    for router in (
        events.router,
        conflicts.router,
        usage.router,
        exports.router,
        revenue.router,
        receipts.router,
        plans.router,
        leases.router,
        credits.router,
        sources.router,
        invoices.router,
        corrections.router,
    ):
        app.include_router(router)
    return app


def _open_receipt_keys(settings: BillingSettings) -> ReceiptKeys:
    try:
        return open_receipt_keys(settings.receipt_keys)
    except OSError as error:
        exit_with_error(f"BILLING_RECEIPT_KEYS: {settings.receipt_keys}: {error.strerror}")
    except ValueError as error:
        exit_with_error(f"BILLING_RECEIPT_KEYS: {error}")


def _open_archives(settings: BillingSettings) -> Archives:
    if settings.retention_months is not None and not is_installed():
        exit_with_error(
            "BILLING_RETENTION_MONTHS: archiving needs the extra `billing-archive` of tollgate"
        )
    return Archives(ArchiveStore(settings.archive))


def _auth_client(http: httpx.AsyncClient, settings: BillingSettings) -> AuthClient | None:
    """Return what asks auth about API keys and revocations, or None without an OAuth client."""
    if not settings.client_id:
        return None
    return AuthClient(
        http,
        auth_url=settings.auth_address,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
    )
