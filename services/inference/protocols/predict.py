"""The hot path: predictions of every protocol, answered in front of FastAPI's router.

Token → model → body → slot → rate limit → arrays → price → prediction → journal → answer. Nothing
on it waits for another service (except an account's first request) or a disk it does not need.
"""

import asyncio
import time
from functools import partial
from typing import NamedTuple

import structlog
from starlette.types import Receive, Scope, Send

from services.common.errors import (
    STOPPING,
    InsufficientScope,
    ServiceError,
    error_response,
)
from services.common.identity import Caller, TokenVerifier, bearer_token
from services.common.observe import request_id
from services.inference.drift.watch import DriftWatch
from services.inference.engine.runtime import Answer, Engine
from services.inference.feedback.recent import Recent
from services.inference.metering import events
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal import Journal
from services.inference.metering.lease_manager import LeaseManager, Spending
from services.inference.models.inputs import retained_bytes
from services.inference.models.loader import Loader
from services.inference.models.registry import LoadedModel, Registry
from services.inference.protocols.admission import ConcurrencyLimiter, Held, MemoryLimiter
from services.inference.protocols.computing import compute, compute_in_trial
from services.inference.protocols.decoding import Decoder
from services.inference.protocols.metrics import PredictMetrics
from services.inference.protocols.reading import (
    BodyTooLarge,
    ClientGone,
    Head,
    read_body,
    read_head,
)
from services.inference.protocols.v1 import document as v1
from services.inference.protocols.v2 import document as v2
from services.inference.protocols.wire import Body, Encoded, Query, Wire
from services.inference.rollouts.canary import Canaries
from services.inference.rollouts.shadow import Answered, Shadows

_V1, _V1_END = "/v1/models/", ":predict"
_V2, _V2_END, _V2_VERSION = "/v2/models/", "/infer", "/versions/"
log = structlog.get_logger()


class Target(NamedTuple):
    """What a prediction is asked of; `version` is None for the live one."""

    wire: Wire
    model: str
    version: str | None = None


def find_target(path: str) -> Target | None:
    """The target of a `POST` to `path`, or None if that is no prediction."""
    if path.startswith(_V1) and path.endswith(_V1_END):
        return Target(v1.WIRE, path[len(_V1) : -len(_V1_END)])
    if path.startswith(_V2) and path.endswith(_V2_END):
        model, separator, version = path[len(_V2) : -len(_V2_END)].partition(_V2_VERSION)
        return Target(v2.WIRE, model, version if separator else None)
    return None


class _Request(NamedTuple):
    """A complete request by a caller who may predict; `started` on the process's clock."""

    caller: Caller
    target: Target
    path: str
    head: Head
    content: bytes
    started: float


class _Receipt(NamedTuple):
    """What a prediction was answered, by what, and billed as; `size` in bytes of memory."""

    caller: Caller
    model: LoadedModel
    query: Query
    answer: Answer
    encoded: Encoded
    event_id: str
    spending: Spending
    size: int


class PredictEndpoint:
    """An ASGI endpoint built by the lifespan from the resources it uses.

    Args:
        max_body_bytes: a larger body is answered 413.
        max_rows: more rows in one request do not fit.
        max_in_flight: predictions at once; beyond them, or beyond an account's share, 503.
        max_body_bytes_in_flight: bytes of requests in memory at once; the same.
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
        drift: DriftWatch,
        recent: Recent,
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
            receipt = await self._answer(target, scope, receive, started)
            status = 200
            await _send(send, rid, receipt)
            self._note(target, receipt)
        except ClientGone:
            pass
        except asyncio.CancelledError:  # by a server that stops, at the end of its patience
            if status == 200:
                raise
            log.error("request_cut_short", path=scope["path"], request_id=rid)
            status = await self._refuse(STOPPING, target, rid, scope, receive, send)
        except Exception as error:
            if status == 200:
                raise
            status = await self._refuse(error, target, rid, scope, receive, send)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.observe(target.wire.route, status, seconds)

    async def _answer(
        self, target: Target, scope: Scope, receive: Receive, started: float
    ) -> _Receipt:
        token = bearer_token(scope["headers"])
        caller = self._verifier.recall(token) or await self._verifier.verify(token)
        if "predict" not in caller.scopes:
            raise InsufficientScope("predict")
        model = self._registry.find(target.model, target.version)
        if model is None:
            with self._limiter.acquire(caller.account):
                model = await self._loader.get(target.model, target.version)
        head = read_head(scope["headers"])
        if head.length > self._max_body_bytes:
            raise BodyTooLarge()
        with self._memory.hold(caller.account) as held:
            content = await read_body(receive, self._max_body_bytes, held)
            request = _Request(caller, target, scope["path"], head, content, started)
            with self._limiter.acquire(caller.account):
                return await self._predict(request, model, held)

    async def _predict(self, request: _Request, model: LoadedModel, held: Held) -> _Receipt:
        """Answer a complete request; it counts against the rate limit before it is looked at."""
        caller, target, key = request.caller, request.target, request.head.idempotency_key
        self._journal.check_room(in_flight=self._limiter.taken)
        await self._leases.admit(caller.account)
        query, event_id = await self._decoder.run(
            partial(self._decode, request, model),
            size=len(request.content),
            account=caller.account,
        )
        held.grow(retained_bytes(query.arrays), is_complete=True)
        rows = query.rows
        name = model.manifest.model
        spending = await self._leases.spend(caller.account, name, rows, event_id=event_id or None)
        try:
            # Before it is billed: whatever fails costs nothing.
            trial = self._canaries.trial(model.manifest) if target.version is None else None
            if trial is None:
                answer, encoded = await compute(self._engine, model, query)
            else:
                model, answer, encoded = await compute_in_trial(
                    self._engine, self._canaries, trial, model, query, account=caller.account
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
                        latency_ms=(time.perf_counter() - request.started) * 1000,
                        now=self._billing.now(),
                    )
                )
                if key is not None:
                    self._leases.remember(event_id, spending)
        except BaseException:
            spending.free()
            raise
        return _Receipt(caller, model, query, answer, encoded, event_id, spending, held.size)

    def _decode(self, request: _Request, model: LoadedModel) -> tuple[Query, str]:
        """The decoded body, and the event id that its key stands for, or ""."""
        wire, key = request.target.wire, request.head.idempotency_key
        body = Body(request.content, request.head.json_length)
        query = wire.decode(body, model, self._max_rows)
        if key is None:
            return query, ""
        identity = wire.identity(body)
        account = request.caller.account
        return query, events.keyed_id(account=account, key=key, path=request.path, body=identity)

    def _note(self, target: Target, receipt: _Receipt) -> None:
        """What is to be done about a prediction once it was sent; nobody waits for it."""
        model, query, answer = receipt.model, receipt.query, receipt.answer
        self._metrics.answered(model.manifest, query.rows)
        self._drift.take(model, query.arrays, answer.predictions, size=receipt.size)
        self._recent.add(
            receipt.event_id,
            account=receipt.caller.account,
            manifest=model.manifest,
            predictions=answer.predictions,
            arrays=query.arrays,
            size=receipt.size,
        )
        if target.version is None and self._shadows.wanted(target.model):
            self._shadows.offer(
                Answered(model.manifest, query.arrays, answer.predictions, receipt.size)
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
        """Answer an error and return its status; it is not billed."""
        if not isinstance(error, ServiceError):
            log.exception("unhandled_error", path=scope["path"], request_id=rid)
            error = ServiceError()
        problem = error_response(error, path=scope["path"], request_id=rid)
        response = target.wire.refusal(problem)
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


async def _send(send: Send, rid: str, receipt: _Receipt) -> None:
    encoded, manifest = receipt.encoded, receipt.model.manifest
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
                (b"x-usage-event", receipt.event_id.encode()),
                (b"x-usage-amount", receipt.spending.usage_amount()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": encoded.content})
