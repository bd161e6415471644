"""The hot path: predictions of every protocol, answered in front of FastAPI's router.

Token → lease → model → arrays → prediction → journal → answer. Nothing on it waits for another
service (but for an account's first request) or for a disk it does not have to.
"""

import asyncio
import re
import time
from typing import NamedTuple

import structlog
from starlette.types import Receive, Scope, Send

from services.common.errors import (
    STOPPING,
    BadRequest,
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
from services.inference.metering.terms import Spending, Terms
from services.inference.models.loader import Loader
from services.inference.models.registry import LoadedModel, Registry
from services.inference.protocols.computing import compute, compute_in_trial
from services.inference.protocols.metrics import PredictMetrics
from services.inference.protocols.seats import Seats
from services.inference.protocols.v1 import document as v1
from services.inference.protocols.v2 import document as v2
from services.inference.protocols.v2.document import JSON_LENGTH_HEADER
from services.inference.protocols.wire import Body, Encoded, Query, Wire
from services.inference.rollouts.canary import Canaries
from services.inference.rollouts.shadow import Answered, Shadows

BODY_DEADLINE_S = 30.0

_V1, _V1_END = "/v1/models/", ":predict"
_V2, _V2_END, _V2_VERSION = "/v2/models/", "/infer", "/versions/"
_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_LENGTH = re.compile(rb"[0-9]{1,10}")

log = structlog.get_logger()


class BodyTooLarge(ServiceError):
    """The body is over the limit."""

    status = 413
    code = "body_too_large"
    detail = "The body is too large."


class EncodingRefused(ServiceError):
    """A compressed body; nothing here inflates what a stranger sends."""

    status = 415
    code = "encoding_not_accepted"
    detail = "Content-Encoding is not accepted."


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_too_slow"
    detail = "The body did not arrive in time."


class ClientGone(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


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


class _Head(NamedTuple):
    """What the request's headers say, read in one pass; lengths in bytes."""

    idempotency_key: str | None
    length: int
    json_length: int | None


class _Receipt(NamedTuple):
    """What a prediction was answered, by what, and billed as; `size` in bytes of its body."""

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
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        terms: Terms,
        registry: Registry,
        loader: Loader,
        engine: Engine,
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
    ) -> None:
        self._verifier = verifier
        self._terms = terms
        self._registry = registry
        self._loader = loader
        self._engine = engine
        self._journal = journal
        self._billing = billing
        self._canaries = canaries
        self._shadows = shadows
        self._drift = drift
        self._recent = recent
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_rows = max_rows
        self._seats = Seats(max_in_flight)
        metrics.count_in_flight(lambda: self._seats.taken)

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
        with self._seats.taken_by(caller.account):
            if model is None:
                model = await self._loader.get(target.model, target.version)
            return await self._predict(caller, target, model, scope, receive, started)

    async def _predict(
        self,
        caller: Caller,
        target: Target,
        model: LoadedModel,
        scope: Scope,
        receive: Receive,
        started: float,
    ) -> _Receipt:
        wire = target.wire
        head = _read_head(scope["headers"])
        if head.length > self._max_body_bytes:
            raise BodyTooLarge()
        self._journal.check_room(in_flight=self._seats.taken)
        body = Body(await _read_body(receive, self._max_body_bytes), head.json_length)
        query = wire.decode(body, model, self._max_rows)
        rows = query.rows
        key, event_id = head.idempotency_key, ""
        if key is not None:
            event_id = events.keyed_id(
                account=caller.account, key=key, path=scope["path"], body=wire.identity(body)
            )
        name = model.manifest.model
        spending = await self._terms.spend(caller.account, name, rows, event_id=event_id or None)
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
                        latency_ms=(time.perf_counter() - started) * 1000,
                        now=self._billing.now(),
                    )
                )
                if key is not None:
                    self._terms.remember(event_id, spending)
        except BaseException:
            spending.free()
            raise
        size = len(body.content)
        return _Receipt(caller, model, query, answer, encoded, event_id, spending, size)

    def _note(self, target: Target, receipt: _Receipt) -> None:
        """What is to be done about a prediction once it was sent; nobody waits for it."""
        model, query, answer = receipt.model, receipt.query, receipt.answer
        self._metrics.answered(model.manifest, query.rows)
        self._drift.take(model, query.arrays, answer.predictions)
        self._recent.add(
            receipt.event_id,
            account=receipt.caller.account,
            manifest=model.manifest,
            predictions=answer.predictions,
            arrays=query.arrays,
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


def _read_head(headers: list[tuple[bytes, bytes]]) -> _Head:
    """The headers that matter here.

    Raises:
        EncodingRefused: the body is encoded.
        BadRequest: an `Idempotency-Key` that is empty, too long, not printable or given twice, or
            an `Inference-Header-Content-Length` that is no number.
    """
    key: bytes | None = None
    length, json_length = 0, None
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None or not _KEY.fullmatch(value):
                raise BadRequest("Idempotency-Key takes 1 to 255 printable ASCII characters.")
            key = value
        elif name == b"content-length":
            length = int(value)
        elif name == JSON_LENGTH_HEADER:
            if json_length is not None or not _LENGTH.fullmatch(value):
                raise BadRequest("Inference-Header-Content-Length takes a number of bytes.")
            json_length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise EncodingRefused()
    return _Head(None if key is None else key.decode("ascii"), length, json_length)


async def _read_body(receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: more than `limit` bytes came.
        BodyTooSlow: it did not come in time.
        ClientGone: the client hung up.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise BodyTooLarge()
        return whole
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while message["type"] == "http.request":
                chunks += message.get("body", b"")
                if len(chunks) > limit:
                    raise BodyTooLarge()
                if not message.get("more_body", False):
                    return bytes(chunks)
                message = await receive()
    except TimeoutError as error:
        raise BodyTooSlow() from error
    raise ClientGone


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
                (b"x-usage-amount", receipt.spending.receipt()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": encoded.content})
