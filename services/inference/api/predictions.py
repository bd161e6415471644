"""The hot path: predictions of every protocol, answered before they reach FastAPI's router.

Credentials → admission → body → price and credit → inference → journal → answer. It waits for no
other service, except on an account's first request, and for no disk but the journal's. Whatever
need not wait is a plain function of `steps` or of the collaborators.
"""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.types import Receive, Scope, Send

from services.common.errors import STOPPING, ServiceError, error_response
from services.common.identity.guards import bearer_token
from services.common.telemetry.requests import request_id
from services.inference.api import steps
from services.inference.api.admission import MemoryReservation
from services.inference.api.collaborators import (
    Admission,
    Metering,
    Models,
    Monitoring,
    Rollouts,
)
from services.inference.api.computing import compute, compute_in_trial, compute_now
from services.inference.api.decoding import Decoder
from services.inference.api.reading import ClientDisconnected, read_body, read_head
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import Target
from services.inference.metering import events
from services.inference.models.inputs import retained_bytes
from services.inference.models.table import LoadedModel

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

log = structlog.get_logger()


class PredictEndpoint:
    """The ASGI endpoint for predictions."""

    def __init__(
        self,
        *,
        admission: Admission,
        decoder: Decoder,
        models: Models,
        metering: Metering,
        rollouts: Rollouts,
        monitoring: Monitoring,
    ) -> None:
        self._admission = admission
        self._decoder = decoder
        self._models = models
        self._metering = metering
        self._rollouts = rollouts
        self._monitoring = monitoring

    async def __call__(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        rid = request_id(scope["headers"])
        status = 499
        try:
            prediction = await self._answer(target, scope, receive, started)
            status = 200
            await _send(send, prediction, request_id=rid)
            steps.observe(prediction, monitoring=self._monitoring, rollouts=self._rollouts)
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
            self._monitoring.metrics.observe(target.codec.route, status, seconds)

    async def _answer(
        self, target: Target, scope: Scope, receive: Receive, started: float
    ) -> Prediction:
        """Check the credentials, find the model, read the body, and predict."""
        admission = self._admission
        token = bearer_token(scope["headers"])
        caller = admission.verifier.recall(token) or await admission.verifier.verify(token)
        steps.check_scope(caller)
        # From here on the account is known, so whatever is refused counts against its rate limit.
        leases = self._metering.leases
        if not leases.admit_now(caller.account):
            await leases.admit(caller.account)
        model = self._models.table.find(target.model, target.version)
        if model is None:
            with admission.limiter.acquire(caller.account):
                model = await self._models.loader.get(target.model, target.version)
        head = read_head(scope["headers"], max_bytes=admission.max_body_bytes)
        with admission.memory.reserve(caller.account) as memory:
            content = await read_body(receive, admission.max_body_bytes, memory)
            call = Call(caller, target, scope["path"], head, content, started)
            with admission.limiter.acquire(caller.account):
                return await self._predict(call, model, memory)

    async def _predict(
        self, call: Call, model: LoadedModel, memory: MemoryReservation
    ) -> Prediction:
        """Answer a complete request."""
        account, leases = call.caller.account, self._metering.leases
        steps.check_room(self._admission, self._metering)
        request, keyed_id = await self._decoder.run(
            partial(steps.decode_body, call, model, self._admission.max_rows),
            size=len(call.content),
            account=account,
        )
        memory.grow(retained_bytes(request.arrays), is_complete=True)
        name = model.manifest.model
        spending = await leases.spend(account, name, request.rows, event_id=keyed_id)
        try:
            # Compute before billing, so that a failure costs nothing.
            canaries = self._rollouts.canaries
            trial = canaries.trial(model.manifest) if call.target.version is None else None
            if trial is not None:
                model, response, encoded = await compute_in_trial(
                    self._models.engine, canaries, trial, model, request, account=account
                )
            else:
                response, encoded = compute_now(model, request) or await compute(
                    self._models.engine, model, request
                )
            prediction = Prediction(
                call.caller,
                call.target,
                call.started,
                model,
                request,
                response,
                encoded,
                keyed_id or events.new_id(),
                spending,
                memory.size,
                is_keyed=keyed_id is not None,
            )
            if spending.owed:
                await self._record(prediction)
                steps.remember(prediction, self._metering)
        except BaseException:
            spending.free()
            raise
        return prediction

    def _record(self, prediction: Prediction) -> Awaitable[None]:
        """Journal the usage event, in a span of the request's trace if it has one."""
        metering = self._metering
        if metering.tracing is not None and metering.tracing.is_recording:
            return self._record_traced(prediction, metering.tracing)
        return metering.journal.append(steps.encode_event(prediction, metering))

    async def _record_traced(self, prediction: Prediction, tracing: "Tracing") -> None:
        with tracing.hand_on("journal") as traceparent:
            event = steps.encode_event(prediction, self._metering, traceparent=traceparent)
            await self._metering.journal.append(event)

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
        known = target.model if target.model in self._models.table else ""
        self._monitoring.metrics.refused(known, status)
        log.info(
            "prediction_refused",
            path=scope["path"],
            status=status,
            code=error.code,
            request_id=rid,
        )
        await response(scope, receive, send)
        return status


async def _send(send: Send, prediction: Prediction, *, request_id: str) -> None:
    values = steps.receipt(prediction, request_id=request_id)
    receipt = zip(steps.RECEIPT, values, strict=True)
    headers = [
        *prediction.encoded.headers,
        *((name.encode(), str(value).encode()) for name, value in receipt),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": prediction.encoded.content})
