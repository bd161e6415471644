"""The hot path: `POST /v1/models/{model}:predict`, answered in front of FastAPI's router.

Token → lease → model → arrays → prediction → journal → answer. Nothing on it waits for another
service (but for an account's first request) or for a disk it does not have to.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from services.common.errors import (
    BadRequest,
    InsufficientScope,
    ServiceError,
    error_response,
)
from services.common.identity import Caller, TokenVerifier, bearer_token
from services.common.observe import request_id
from services.inference.engine.runtime import Answer, Engine
from services.inference.metering import events
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal import Journal
from services.inference.metering.terms import Spending, Terms
from services.inference.models.registry import LoadedModel, Registry
from services.inference.protocols import instances as document
from services.inference.protocols.metrics import PredictMetrics
from services.inference.protocols.seats import Seats

PREFIX = "/v1/models/"
SUFFIX = ":predict"
ROUTE = "/v1/models/{model}:predict"
BODY_DEADLINE_S = 30.0

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")

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


@dataclass(frozen=True, slots=True)
class _Head:
    """What the request's headers say, read in one pass."""

    idempotency_key: str | None
    length: int


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What a prediction was answered by and billed as."""

    model: LoadedModel
    event_id: str
    spending: Spending
    rows: int


class PredictEndpoint:
    """An ASGI endpoint built by the lifespan from the resources it uses.

    Args:
        max_body_bytes: a larger body is answered 413.
        max_rows: more rows in one request are answered 422.
        max_in_flight: predictions at once; beyond them, or beyond an account's share, 503.
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        terms: Terms,
        registry: Registry,
        engine: Engine,
        journal: Journal,
        billing: BillingClient,
        metrics: PredictMetrics,
        max_body_bytes: int,
        max_rows: int,
        max_in_flight: int,
    ) -> None:
        self._verifier = verifier
        self._terms = terms
        self._registry = registry
        self._engine = engine
        self._journal = journal
        self._billing = billing
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_rows = max_rows
        self._seats = Seats(max_in_flight)
        metrics.count_in_flight(lambda: self._seats.taken)

    async def __call__(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for the model `name`."""
        started = time.perf_counter()
        rid = request_id(scope)
        status = 499
        try:
            receipt, body = await self._answer(name, scope, receive, started)
            status = 200
            await _send(send, rid, receipt, body)
            self._metrics.answered(receipt.model.manifest, receipt.rows)
        except ClientGone:
            pass
        except Exception as error:
            if status == 200:
                raise
            status = await self._refuse(error, name, rid, scope, receive, send)
        finally:
            self._metrics.observe(status, time.perf_counter() - started)

    async def _answer(
        self, name: str, scope: Scope, receive: Receive, started: float
    ) -> tuple[_Receipt, bytes]:
        caller = await self._caller(scope)
        model = self._registry.get(name)
        with self._seats.taken_by(caller.account):
            return await self._predict(caller, model, scope, receive, started)

    async def _predict(
        self, caller: Caller, model: LoadedModel, scope: Scope, receive: Receive, started: float
    ) -> tuple[_Receipt, bytes]:
        head = _read_head(scope["headers"])
        if head.length > self._max_body_bytes:
            raise BodyTooLarge()
        self._journal.check_room(in_flight=self._seats.taken)
        body = await _read_body(receive, self._max_body_bytes)
        instances, probabilities = document.parse(body, model, max_rows=self._max_rows)
        arrays = model.inputs.decode(instances)
        rows = len(instances)
        key, event_id = head.idempotency_key, ""
        if key is not None:
            event_id = events.keyed_id(
                account=caller.account, key=key, path=scope["path"], body=body
            )
        name = model.manifest.model
        spending = await self._terms.spend(caller.account, name, rows, event_id=event_id or None)
        try:
            answer = await self._engine.predict(
                model.runtime, arrays, rows=rows, probabilities=probabilities
            )
            encoded = _encode(answer)  # before it is billed: whatever fails costs nothing
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
        return _Receipt(model, event_id, spending, rows), encoded

    async def _caller(self, scope: Scope) -> Caller:
        token = bearer_token(scope["headers"])
        caller = self._verifier.recall(token) or await self._verifier.verify(token)
        if "predict" not in caller.scopes:
            raise InsufficientScope("predict")
        return caller

    async def _refuse(
        self, error: Exception, name: str, rid: str, scope: Scope, receive: Receive, send: Send
    ) -> int:
        """Answer an error and return its status; it is not billed."""
        if not isinstance(error, ServiceError):
            log.exception("unhandled_error", path=scope["path"], request_id=rid)
            error = ServiceError()
        response = error_response(error, path=scope["path"], request_id=rid)
        response.headers["x-request-id"] = rid
        self._metrics.refused(name if name in self._registry else "", error.status)
        log.info(
            "prediction_refused",
            path=scope["path"],
            status=error.status,
            code=error.code,
            request_id=rid,
        )
        await response(scope, receive, send)
        return error.status


def _read_head(headers: list[tuple[bytes, bytes]]) -> _Head:
    """The headers that matter here.

    Raises:
        EncodingRefused: the body is encoded.
        BadRequest: an `Idempotency-Key` that is empty, too long, not printable or given twice.
    """
    key: bytes | None = None
    length = 0
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None or not _KEY.fullmatch(value):
                raise BadRequest("Idempotency-Key takes 1 to 255 printable ASCII characters.")
            key = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise EncodingRefused()
    return _Head(None if key is None else key.decode("ascii"), length)


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


def _encode(answer: Answer) -> bytes:
    document: dict[str, Any] = {"predictions": answer.predictions}
    if answer.probabilities is not None:
        document["probabilities"] = answer.probabilities
    return orjson.dumps(document)


async def _send(send: Send, rid: str, receipt: _Receipt, body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", rid.encode()),
                (b"x-model-name", receipt.model.manifest.model.encode()),
                (b"x-model-version", receipt.model.manifest.version.encode()),
                (b"x-usage-event", receipt.event_id.encode()),
                (b"x-usage-amount", receipt.spending.receipt()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
