"""Composition root of the inference service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.feedback import FeedbackStore
from registry.keys import TrustedKeys
from registry.releases import ReleaseManager
from registry.store import ModelStore
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.common.http.methods import Cors
from services.common.identity.tokens import IssuerKeys, TokenVerifier
from services.inference.api.decoding import Decoder
from services.inference.api.metrics import PredictMetrics
from services.inference.api.predictions import PredictEndpoint, Target, find_target
from services.inference.api.v1 import router as v1
from services.inference.api.v2 import router as v2
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal.journal import Journal
from services.inference.metering.leases.manager import LeaseManager
from services.inference.metering.metrics import MeteringMetrics
from services.inference.metering.shipper import Shipper
from services.inference.metering.tracing import TracedBillingClient, TracedJournal
from services.inference.models.cache import ModelCache
from services.inference.models.engine import Engine
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.registry import Registry
from services.inference.models.watcher import Watcher
from services.inference.monitoring import feedback_router
from services.inference.monitoring.drift import DriftMonitor
from services.inference.monitoring.feedback import FeedbackService
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
    "X-Request-ID",
)
RESPONSE_HEADERS = (
    "Inference-Header-Content-Length",
    "Retry-After",
    "X-Model-Name",
    "X-Model-Version",
    "X-Request-ID",
    "X-Usage-Amount",
    "X-Usage-Event",
)

Predict = Callable[[Target, Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger()


class InferenceApp:
    """The ASGI app: passes predictions to their endpoint and everything else to FastAPI.

    FastAPI's routing and parsing would cost several times as much as a prediction.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            target = find_target(scope["path"])
            if target is not None:
                predict: Predict = self.app.state.predict
                await predict(target, scope, receive, send)
                return
        await self.app(scope, receive, send)


def create_app(settings: InferenceSettings, *, tracing: "Tracing | None" = None) -> ASGIApp:
    """Create the inference service.

    Args:
        tracing: records spans of the requests; the lifespan closes it.

    Raises:
        StoreError: the trusted keys cannot be read, or the URL of a store is invalid.
    """
    trusted = TrustedKeys.load(settings.trusted_keys)
    store = ModelStore(settings.model_store)
    feedback = FeedbackStore(settings.feedback_store)
    cache = ModelCache(
        store, trusted, folder=settings.cache_dir, max_bytes=settings.cache_max_bytes
    )

    new_billing_client: type[BillingClient] | partial[TracedBillingClient] = BillingClient
    new_journal: type[Journal] | partial[TracedJournal] = Journal
    if tracing is not None:
        new_billing_client = partial(TracedBillingClient, tracing)
        new_journal = partial(TracedJournal, tracing)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Open the service's resources; on shutdown, ship the journal and close them.

        The server has finished every request by then, so the journal is complete when it is
        drained.
        """
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(http_client(tracing=tracing))
            keys = IssuerKeys(http, settings.auth_address)
            verifier = TokenVerifier(keys, issuer=settings.auth_url)
            keys.on_withdrawal = verifier.forget
            billing = new_billing_client(
                http,
                billing_url=settings.billing_url,
                auth_url=settings.auth_address,
                client_id=settings.client_id,
                client_secret=settings.client_secret,
            )
            journal = new_journal(
                settings.journal_dir,
                max_bytes=settings.journal_max_bytes,
                sync=settings.journal_sync,
            )
            registry = app.state.metrics.registry
            shipper = Shipper(journal, billing, MeteringMetrics(registry, journal))
            stack.push_async_callback(shipper.drain)
            leases = LeaseManager(
                billing, journal=journal.id, max_age_s=settings.terms_max_age_seconds
            )
            stack.push_async_callback(leases.release)
            model_metrics = ModelMetrics(registry)
            models = Registry(max_bytes=settings.models_max_bytes, metrics=model_metrics)
            loader = Loader(
                cache, models, allow_joblib=settings.allow_joblib, metrics=model_metrics
            )
            stack.push_async_callback(loader.close)
            rollout_metrics = RolloutMetrics(registry)
            release_manager = ReleaseManager(
                store, trusted, actor(), allow_joblib=settings.allow_joblib
            )
            canaries = Canaries(models, loader, release_manager, rollout_metrics)
            shadows = Shadows(models, loader, rollout_metrics)
            stack.callback(shadows.close)
            drift = DriftMonitor(registry, rows_per_second=settings.drift_rows_per_second)
            watcher = Watcher(
                store,
                cache,
                loader,
                models,
                poll_s=settings.model_poll_seconds,
                canary_refused=canaries.refused,
                metrics=model_metrics,
            )
            recent = RecentPredictions(keep_rows=settings.feedback_rows)
            engine = Engine(threads=settings.predict_threads)
            stack.callback(engine.close)
            decoder = Decoder()
            stack.callback(decoder.close)
            background = {
                "models": asyncio.create_task(watcher.run()),
                "leases": asyncio.create_task(leases.run()),
                "shipping": asyncio.create_task(shipper.run()),
                "canaries": asyncio.create_task(canaries.run()),
                "shadows": asyncio.create_task(shadows.run()),
                "drift": asyncio.create_task(drift.run()),
            }
            stack.push_async_callback(_cancel, background)
            app.state.verifier = verifier
            app.state.registry = models
            app.state.loader = loader
            app.state.feedback = FeedbackService(feedback, recent, billing, loader, registry)
            predict = PredictEndpoint(
                verifier=verifier,
                leases=leases,
                registry=models,
                loader=loader,
                engine=engine,
                decoder=decoder,
                journal=journal,
                billing=billing,
                canaries=canaries,
                shadows=shadows,
                drift=drift,
                recent=recent,
                metrics=PredictMetrics(app.state.metrics),
                max_body_bytes=settings.max_body_bytes,
                max_rows=settings.max_rows,
                max_in_flight=settings.max_in_flight,
                max_body_bytes_in_flight=settings.max_body_bytes_in_flight,
            )
            answer: Predict = with_tracing(predict, tracing) if tracing else predict
            app.state.predict = with_cors(cors, answer) if cors.origins else answer

            async def check_background() -> str | None:
                """Report tasks that ended, which only a bug can cause; serving would be unsafe."""
                stopped = [name for name, task in background.items() if task.done()]
                return f"Background tasks stopped: {', '.join(stopped)}." if stopped else None

            app.state.checks = {
                "keys": keys.check,
                "models": watcher.check,
                "journal": journal.check,
                "background": check_background,
            }
            yield

    cors = Cors(
        origins=settings.cors_origins,
        methods=["GET", "POST"],
        headers=REQUEST_HEADERS,
        exposed=RESPONSE_HEADERS,
    )
    app = service_app(
        title="Tollgate inference",
        description="Predictions, billed per request. Log in with Authorize to try them.",
        token_url=f"{settings.auth_url}/token",
        lifespan=lifespan,
        max_body_bytes=min(settings.max_body_bytes, MAX_OTHER_BODY_BYTES),
        refuse=v2.refuse,
        cors=cors,
        amend_openapi=v2.amend_openapi,
        tracing=tracing,
    )
    app.include_router(v1.documented)
    app.include_router(v2.documented)
    app.include_router(v1.router)
    app.include_router(v2.router)
    app.include_router(feedback_router.router)
    return InferenceApp(app)


def with_cors(cors: Cors, predict: Predict) -> Predict:
    """Add CORS headers to predictions, which bypass the app's middleware; preflights do not."""

    def answer(target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return cors.around(partial(predict, target))(scope, receive, send)

    return answer


def with_tracing(predict: Predict, tracing: "Tracing") -> Predict:
    """Record spans of predictions, which bypass the app's tracing."""

    def answer(target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return tracing.answer(
            partial(predict, target), scope, receive, send, route=target.codec.route
        )

    return answer


async def _cancel(tasks: dict[str, asyncio.Task[None]]) -> None:
    for task in tasks.values():
        task.cancel()
    for name, outcome in zip(
        tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True
    ):
        if not isinstance(outcome, asyncio.CancelledError):
            log.error("background_task_failed", task=name, error=repr(outcome))
