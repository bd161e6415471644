"""Composition root of the inference service."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from registry.feedback import FeedbackStore
from registry.keys import TrustedKeys
from registry.releases import ReleaseManager
from registry.store import ModelStore
from services.common.http.addresses import public_addresses
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.common.http.methods import Cors
from services.common.identity.auth_client import AuthClient
from services.common.identity.issuer_keys import IssuerKeys
from services.common.identity.key_verifier import KeyVerifier
from services.common.identity.rejection_feed import report_rejections
from services.common.identity.rejections import RejectionLog
from services.common.identity.revocation_feed import follow_revocations
from services.common.identity.revocations import Revocations
from services.common.identity.tokens import TokenVerifier
from services.common.telemetry.metrics import Metrics
from services.inference.api.admission import ConcurrencyLimiter, FairSlots, MemoryLimiter
from services.inference.api.collaborators import Admission, Metering, Models, Monitoring, Rollouts
from services.inference.api.decoding import Decoder
from services.inference.api.fast_path import FAST_PATH, FastPath
from services.inference.api.front import InferenceApp, around_predictions
from services.inference.api.metrics import PredictMetrics
from services.inference.api.predictions import PredictEndpoint
from services.inference.api.unbilled import UnbilledRates
from services.inference.api.v1 import router as v1
from services.inference.api.v2 import router as v2
from services.inference.background import Background
from services.inference.catalogue import router as catalogue
from services.inference.catalogue.documents import Documents
from services.inference.catalogue.history import ReleaseHistory
from services.inference.catalogue.prices import PriceList
from services.inference.catalogue.router import CatalogueSources
from services.inference.mcp import router as mcp
from services.inference.mcp.server import ToolServer
from services.inference.metering.billing_client import BillingClient
from services.inference.metering.journal.journal import Journal
from services.inference.metering.leases.manager import LeaseManager
from services.inference.metering.metrics import MeteringMetrics
from services.inference.metering.shipper import Shipper
from services.inference.models.cache import ModelCache
from services.inference.models.engine import Engine
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.table import ModelTable
from services.inference.models.watcher import Watcher
from services.inference.monitoring import feedback_router
from services.inference.monitoring.drift import DriftMonitor
from services.inference.monitoring.feedback import FeedbackService
from services.inference.monitoring.loop_lag import LoopLag
from services.inference.monitoring.recent_predictions import RecentPredictions
from services.inference.rollouts.canary import Canaries, actor
from services.inference.rollouts.metrics import RolloutMetrics
from services.inference.rollouts.shadow import Shadows
from services.inference.settings import InferenceSettings

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

MAX_OTHER_BODY_BYTES = 256 * 1024
"""The largest body of other requests, which are parsed on the event loop: ten thousand labels."""

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Inference-Header-Content-Length",
    "MCP-Protocol-Version",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout",
    "X-Tags",
)
RESPONSE_HEADERS = (
    "Deprecation",
    "Inference-Header-Content-Length",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Sunset",
    "X-Model-Name",
    "X-Model-Version",
    "X-Request-ID",
    "X-Usage-Amount",
    "X-Usage-Event",
)


def create_app(settings: InferenceSettings, *, tracing: "Tracing | None" = None) -> ASGIApp:
    """Create the inference service.

    Args:
        tracing: records spans of the requests; the lifespan closes it.

    Raises:
        StoreError: the trusted keys cannot be read, or the URL of a store is invalid.
    """
    stores = _open_stores(settings)
    cors = Cors(
        origins=settings.cors_origins,
        methods=["GET", "POST"],
        headers=REQUEST_HEADERS,
        exposed=RESPONSE_HEADERS,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        """Open the service's resources; on shutdown, ship the journal and close them.

        The server has finished every request by then, so the journal is complete when it is
        drained.
        """
        prometheus = app.state.metrics.registry
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(http_client(tracing=tracing))
            rejections = RejectionLog()
            keys, verifier, auth = _open_identity(http, settings, rejections)
            metering, shipper = _open_metering(stack, http, settings, prometheus, tracing)
            models, watched = _open_models(stack, stores, settings, prometheus)
            rollouts = _open_rollouts(stack, stores, settings, models, prometheus)
            watcher = _open_watcher(stores, settings, models, rollouts, watched)
            admission = _open_admission(settings, verifier)
            monitoring = _open_monitoring(settings, app.state.metrics, admission)
            feedback = FeedbackService(
                stores.feedback, monitoring.recent, metering.billing, models.loader, prometheus
            )
            decoder = Decoder()
            stack.callback(decoder.close)
            background = Background(
                models=watcher.run,
                revocations=partial(follow_revocations, auth, verifier),
                rejections=partial(report_rejections, auth, rejections),
                leases=metering.leases.run,
                shipping=shipper.run,
                canaries=rollouts.canaries.run,
                shadows=rollouts.shadows.run,
                drift=monitoring.drift.run,
                loop_lag=LoopLag(prometheus).run,
            )
            stack.push_async_callback(background.cancel)
            predict = PredictEndpoint(
                admission=admission,
                decoder=decoder,
                models=models,
                metering=metering,
                rollouts=rollouts,
                monitoring=monitoring,
            )
            fast_path = FastPath(
                admission=admission,
                models=models,
                metering=metering,
                rollouts=rollouts,
                monitoring=monitoring,
            )
            app.state.predict = around_predictions(predict, cors=cors, tracing=tracing)
            app.state.verifier = verifier
            app.state.models = models.table
            app.state.loader = models.loader
            app.state.feedback = feedback
            app.state.catalogue = _open_catalogue(stack, http, stores, settings)
            app.state.origins = frozenset(settings.cors_origins)
            app.state.tools = ToolServer(
                predict, admission=admission, models=models, version=app.version
            )
            app.state.checks = {
                "keys": keys.check,
                "models": watcher.check,
                "journal": metering.journal.check,
                "background": background.check,
            }
            if settings.grpc_port is not None:
                await stack.enter_async_context(
                    _serving_grpc(app, settings, predict, admission, models, monitoring)
                )
            yield {FAST_PATH: fast_path}

    app = service_app(
        title="Tollgate inference",
        description="Predictions, billed per request. Sign in with Authorize to try them.",
        token_url=f"{settings.auth_url}/token",
        addresses=public_addresses(settings, issuer=settings.auth_url),
        lifespan=lifespan,
        max_body_bytes=min(settings.max_body_bytes, MAX_OTHER_BODY_BYTES),
        refuse=v2.refuse,
        cors=cors,
        accepts_api_keys=True,
        amend_openapi=v2.amend_openapi,
        tracing=tracing,
    )
    for router in (
        v1.documented,
        v2.documented,
        catalogue.router,
        v1.router,
        v2.router,
        feedback_router.router,
        mcp.router,
    ):
        app.include_router(router)
    return InferenceApp(app)


# -- resources, each group closed by the stack -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stores:
    """The files that the service reads and writes."""

    models: ModelStore
    trusted: TrustedKeys
    cache: ModelCache
    feedback: FeedbackStore


def _open_stores(settings: InferenceSettings) -> _Stores:
    trusted = TrustedKeys.load(settings.trusted_keys)
    models = ModelStore(settings.model_store)
    cache = ModelCache(
        models, trusted, folder=settings.cache_dir, max_bytes=settings.cache_max_bytes
    )
    return _Stores(models, trusted, cache, FeedbackStore(settings.feedback_store))


def _open_identity(
    http: httpx.AsyncClient, settings: InferenceSettings, rejections: RejectionLog
) -> tuple[IssuerKeys, TokenVerifier, AuthClient]:
    keys = IssuerKeys(http, settings.auth_address)
    auth = AuthClient(
        http,
        auth_url=settings.auth_address,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
    )
    revocations = Revocations()
    verifier = TokenVerifier(
        keys,
        issuer=settings.auth_url,
        api_keys=KeyVerifier(auth.introspect_key, revocations=revocations),
        revocations=revocations,
        rejections=rejections,
    )
    keys.on_withdrawal = verifier.forget
    return keys, verifier, auth


def _open_metering(
    stack: AsyncExitStack,
    http: httpx.AsyncClient,
    settings: InferenceSettings,
    prometheus: CollectorRegistry,
    tracing: "Tracing | None",
) -> tuple[Metering, Shipper]:
    """Open the journal; on exit, give back unspent credit, then ship what is left."""
    billing = BillingClient(
        http,
        billing_url=settings.billing_url,
        auth_url=settings.auth_address,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        tracing=tracing,
    )
    journal = Journal(
        settings.journal_dir, max_bytes=settings.journal_max_bytes, sync=settings.journal_sync
    )
    shipper = Shipper(journal, billing, MeteringMetrics(prometheus, journal))
    stack.push_async_callback(shipper.drain)
    leases = LeaseManager(billing, journal=journal.id, max_age_s=settings.terms_max_age_seconds)
    stack.push_async_callback(leases.release)
    return Metering(leases, journal, billing, tracing), shipper


def _open_models(
    stack: AsyncExitStack,
    stores: _Stores,
    settings: InferenceSettings,
    prometheus: CollectorRegistry,
) -> tuple[Models, ModelMetrics]:
    metrics = ModelMetrics(prometheus)
    table = ModelTable(max_bytes=settings.models_max_bytes, metrics=metrics)
    loader = Loader(stores.cache, table, allow_joblib=settings.allow_joblib, metrics=metrics)
    stack.push_async_callback(loader.close)
    engine = Engine(threads=settings.predict_threads)
    stack.callback(engine.close)
    return Models(table, loader, engine), metrics


def _open_rollouts(
    stack: AsyncExitStack,
    stores: _Stores,
    settings: InferenceSettings,
    models: Models,
    prometheus: CollectorRegistry,
) -> Rollouts:
    metrics = RolloutMetrics(prometheus)
    release_manager = ReleaseManager(
        stores.models, stores.trusted, actor(), allow_joblib=settings.allow_joblib
    )
    canaries = Canaries(models.table, models.loader, release_manager, metrics)
    shadows = Shadows(models.table, models.loader, metrics)
    stack.callback(shadows.close)
    return Rollouts(canaries, shadows)


def _open_watcher(
    stores: _Stores,
    settings: InferenceSettings,
    models: Models,
    rollouts: Rollouts,
    metrics: ModelMetrics,
) -> Watcher:
    return Watcher(
        stores.models,
        stores.cache,
        models.loader,
        models.table,
        poll_s=settings.model_poll_seconds,
        canary_refused=rollouts.canaries.refused,
        metrics=metrics,
    )


def _open_admission(settings: InferenceSettings, verifier: TokenVerifier) -> Admission:
    return Admission(
        verifier,
        ConcurrencyLimiter(settings.max_in_flight, max_wait_s=settings.max_wait_seconds),
        MemoryLimiter(settings.max_body_bytes_in_flight),
        UnbilledRates(),
        max_body_bytes=settings.max_body_bytes,
        max_rows=settings.max_rows,
    )


def _open_catalogue(
    stack: AsyncExitStack,
    http: httpx.AsyncClient,
    stores: _Stores,
    settings: InferenceSettings,
) -> CatalogueSources:
    prices = PriceList(http, billing_url=settings.billing_url)
    stack.push_async_callback(prices.close)
    return CatalogueSources(prices, ReleaseHistory(stores.models, stores.cache), Documents())


def _serving_grpc(
    app: FastAPI,
    settings: InferenceSettings,
    predict: PredictEndpoint,
    admission: Admission,
    models: Models,
    monitoring: Monitoring,
) -> AbstractAsyncContextManager[None]:
    """Return what serves gRPC; opened last, so that its calls end before the journal is drained."""
    from services.inference.api.grpc.server import serving  # an extra, and slow to import
    from services.inference.api.grpc.service import READING_AT_ONCE, InferenceService

    service = InferenceService(
        predict,
        admission=admission,
        models=models,
        monitoring=monitoring,
        reading=FairSlots(READING_AT_ONCE),
        checks=app.state.checks,
        version=app.version,
    )
    return serving(
        service,
        host=settings.host,
        port=settings.grpc_port or 0,
        max_message_bytes=settings.max_body_bytes,
        max_calls=settings.max_in_flight,
    )


def _open_monitoring(
    settings: InferenceSettings, requests: Metrics, admission: Admission
) -> Monitoring:
    metrics = PredictMetrics(requests)
    metrics.count_in_flight(
        requests=lambda: admission.limiter.taken, size=lambda: admission.memory.taken
    )
    drift = DriftMonitor(requests.registry, rows_per_second=settings.drift_rows_per_second)
    return Monitoring(metrics, drift, RecentPredictions(keep_rows=settings.feedback_rows))
