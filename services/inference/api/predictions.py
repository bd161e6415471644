"""The hot path: predictions of every protocol, answered before they reach FastAPI's router.

Token → rate limit → model → body → slot → arrays → price → prediction → journal → response. It
waits for no other service, except on an account's first request, and for no disk but the journal's.
"""

import asyncio
import time
from functools import partial
from typing import NamedTuple

import structlog
from starlette.types import Receive, Scope, Send

from registry.runtimes.runtime import InferenceResponse
from services.common.errors import (
    STOPPING,
    InsufficientScope,
    ServiceError,
    error_response,
)
from services.common.identity.tokens import Caller, TokenVerifier, bearer_token
from services.common.telemetry.requests import request_id
from services.inference.api.admission import (
    ConcurrencyLimiter,
    MemoryLimiter,
    MemoryReservation,
)
from services.inference.api.codec import (
    Body,
    EncodedResponse,
    InferenceRequest,
    ProtocolCodec,
)
from services.inference.api.computing import compute, compute_in_trial
from services.inference.api.decoding import Decoder
from services.inference.api.metrics import PredictMetrics
from services.inference.api.reading import (
    BodyTooLarge,
    ClientDisconnected,
    Head,
    read_body,
    read_head,
)
from services.inference.api.v1 import document as v1
from services.inference.api.v2 import document as v2
from services.inference.metering import events
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal.journal import Journal
from services.inference.metering.leases.manager import LeaseManager, Spending
from services.inference.models.engine import Engine
from services.inference.models.inputs import retained_bytes
from services.inference.models.loader import Loader
from services.inference.models.registry import LoadedModel, Registry
from services.inference.monitoring.drift import DriftMonitor
from services.inference.monitoring.recent_predictions import RecentPredictions
from services.inference.rollouts.canary import Canaries
from services.inference.rollouts.shadow import ShadowRequest, Shadows

_V1, _V1_END = "/v1/models/", ":predict"
_V2, _V2_END, _V2_VERSION = "/v2/models/", "/infer", "/versions/"
log = structlog.get_logger()


class Target(NamedTuple):
    """What a prediction request addresses; without a `version`, the live one."""

    codec: ProtocolCodec
    model: str
    version: str | None = None


def find_target(path: str) -> Target | None:
    """Return the target of a `POST` to `path`, or None if it is not a prediction."""
    if path.startswith(_V1) and path.endswith(_V1_END):
        return Target(v1.CODEC, path[len(_V1) : -len(_V1_END)])
    if path.startswith(_V2) and path.endswith(_V2_END):
        model, separator, version = path[len(_V2) : -len(_V2_END)].partition(_V2_VERSION)
        return Target(v2.CODEC, model, version if separator else None)
    return None


class _Call(NamedTuple):
    """A complete request from an authorized caller; `started` is on the performance counter."""

    caller: Caller
    target: Target
    path: str
    head: Head
    content: bytes
    started: float


class _Prediction(NamedTuple):
    """A prediction, the version that made it, and its usage event; `size` in bytes of memory."""

    caller: Caller
    model: LoadedModel
    request: InferenceRequest
    response: InferenceResponse
    encoded: EncodedResponse
    event_id: str
    spending: Spending
    size: int


class PredictEndpoint:
    """The ASGI endpoint for predictions.

    Args:
        max_body_bytes: larger bodies get 413.
        max_rows: requests with more rows are invalid.
        max_in_flight: predictions at once; requests beyond this or the account's share get 503.
        max_body_bytes_in_flight: bytes of requests in memory at once; likewise.
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        leases: LeaseManager,
        registry: Registry,
        loader: Loader,
        engine: Engine,
        decoder: Decoder,
        journal: Journal,
        billing: BillingClient,
        canaries: Canaries,
        shadows: Shadows,
        drift: DriftMonitor,
        recent: RecentPredictions,
        metrics: PredictMetrics,
        max_body_bytes: int,
        max_rows: int,
        max_in_flight: int,
        max_body_bytes_in_flight: int,
    ) -> None:
        self._verifier = verifier
        self._leases = leases
        self._registry = registry
        self._loader = loader
        self._engine = engine
        self._decoder = decoder
        self._journal = journal
        self._billing = billing
        self._canaries = canaries
        self._shadows = shadows
        self._drift = drift
        self._recent = recent
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_rows = max_rows
        self._limiter = ConcurrencyLimiter(max_in_flight)
        self._memory = MemoryLimiter(max_body_bytes_in_flight)
        metrics.count_in_flight(
            requests=lambda: self._limiter.taken, size=lambda: self._memory.taken
        )

    async def __call__(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        rid = request_id(scope)
        status = 499
        try:
            prediction = await self._answer(target, scope, receive, started)
            status = 200
            await _send(send, rid, prediction)
            self._observe(target, prediction)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:  # the server is stopping and has waited long enough
            if status == 200:
                raise
            log.error("request_aborted", path=scope["path"], request_id=rid)
            status = await self._refuse(STOPPING, target, rid, scope, receive, send)
        except Exception as error:
            if status == 200:
                raise
            status = await self._refuse(error, target, rid, scope, receive, send)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.observe(target.codec.route, status, seconds)

    async def _answer(
        self, target: Target, scope: Scope, receive: Receive, started: float
    ) -> _Prediction:
        token = bearer_token(scope["headers"])
        caller = self._verifier.recall(token) or await self._verifier.verify(token)
        if "predict" not in caller.scopes:
            raise InsufficientScope("predict")
        # From here on the account is known, so whatever is refused counts against its rate limit.
        await self._leases.admit(caller.account)
        model = self._registry.find(target.model, target.version)
        if model is None:
            with self._limiter.acquire(caller.account):
                model = await self._loader.get(target.model, target.version)
        head = read_head(scope["headers"])
        if head.length > self._max_body_bytes:
            raise BodyTooLarge()
        with self._memory.reserve(caller.account) as memory:
            content = await read_body(receive, self._max_body_bytes, memory)
            call = _Call(caller, target, scope["path"], head, content, started)
            with self._limiter.acquire(caller.account):
                return await self._predict(call, model, memory)

    async def _predict(
        self, call: _Call, model: LoadedModel, memory: MemoryReservation
    ) -> _Prediction:
        """Answer a complete request."""
        caller, target, key = call.caller, call.target, call.head.idempotency_key
        self._journal.check_room(in_flight=self._limiter.taken)
        request, event_id = await self._decoder.run(
            partial(self._decode, call, model),
            size=len(call.content),
            account=caller.account,
        )
        memory.grow(retained_bytes(request.arrays), is_complete=True)
        rows = request.rows
        name = model.manifest.model
        spending = await self._leases.spend(caller.account, name, rows, event_id=event_id or None)
        try:
            # Compute before billing, so that a failure costs nothing.
            trial = self._canaries.trial(model.manifest) if target.version is None else None
            if trial is None:
                response, encoded = await compute(self._engine, model, request)
            else:
                model, response, encoded = await compute_in_trial(
                    self._engine, self._canaries, trial, model, request, account=caller.account
                )
            event_id = event_id or events.new_id()
            if spending.owed:
                await self._journal.append(
                    events.encode(
                        event_id=event_id,
                        account=caller.account,
                        client_id=caller.client_id,
                        journal=self._journal.id,
                        model=name,
                        version=model.manifest.version,
                        rows=rows,
                        price_id=spending.price_id,
                        latency_ms=(time.perf_counter() - call.started) * 1000,
                        now=self._billing.now(),
                    )
                )
                if key is not None:
                    self._leases.remember(event_id, spending)
        except BaseException:
            spending.free()
            raise
        return _Prediction(
            caller, model, request, response, encoded, event_id, spending, memory.size
        )

    def _decode(self, call: _Call, model: LoadedModel) -> tuple[InferenceRequest, str]:
        """Return the decoded body, and the event id derived from its key, or "" without a key."""
        codec, key = call.target.codec, call.head.idempotency_key
        body = Body(call.content, call.head.json_length)
        request = codec.decode(body, model, self._max_rows)
        if key is None:
            return request, ""
        identity = codec.identity(body)
        account = call.caller.account
        return request, events.keyed_id(account=account, key=key, path=call.path, body=identity)

    def _observe(self, target: Target, prediction: _Prediction) -> None:
        """Pass a sent prediction to the metrics, drift, feedback and shadow."""
        model, request, response = prediction.model, prediction.request, prediction.response
        self._metrics.answered(model.manifest, request.rows)
        self._drift.sample(model, request.arrays, response.predictions, size=prediction.size)
        self._recent.add(
            prediction.event_id,
            account=prediction.caller.account,
            manifest=model.manifest,
            predictions=response.predictions,
            arrays=request.arrays,
            size=prediction.size,
        )
        if target.version is None and self._shadows.wanted(target.model):
            self._shadows.offer(
                ShadowRequest(model.manifest, request.arrays, response.predictions, prediction.size)
            )

    async def _refuse(
        self,
        error: Exception,
        target: Target,
        rid: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> int:
        """Send an error response and return its status."""
        if not isinstance(error, ServiceError):
            log.exception("request_failed", path=scope["path"], request_id=rid)
            error = ServiceError()
        problem = error_response(error, path=scope["path"], request_id=rid)
        response = target.codec.encode_error(problem)
        response.headers["x-request-id"] = rid
        status = response.status_code
        self._metrics.refused(target.model if target.model in self._registry else "", status)
        log.info(
            "prediction_refused",
            path=scope["path"],
            status=status,
            code=error.code,
            request_id=rid,
        )
        await response(scope, receive, send)
        return status


async def _send(send: Send, rid: str, prediction: _Prediction) -> None:
    encoded, manifest = prediction.encoded, prediction.model.manifest
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                *encoded.headers,
                (b"content-length", b"%d" % len(encoded.content)),
                (b"x-request-id", rid.encode()),
                (b"x-model-name", manifest.model.encode()),
                (b"x-model-version", manifest.version.encode()),
                (b"x-usage-event", prediction.event_id.encode()),
                (b"x-usage-amount", prediction.spending.usage_amount()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": encoded.content})
