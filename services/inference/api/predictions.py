"""The hot path: predictions of every protocol, answered before they reach FastAPI's router.

Credentials → admission → body → price and credit → inference → journal → answer. It waits for no
other service, except on an account's first request, and for no disk but the journal's. Whatever
need not wait is a plain function of `steps` or of the collaborators.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.types import Receive, Scope, Send

from services.common.errors import STOPPING, ServiceError, error_response
from services.common.identity.caller import Caller
from services.common.identity.guards import authenticate
from services.common.telemetry.requests import request_id
from services.inference.access import check_model, check_scope
from services.inference.api import json_body, steps
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
from services.inference.api.json_body import WHOLE_BYTES
from services.inference.api.reading import (
    ClientDisconnected,
    check_deadline,
    check_wanted,
    read_body,
    read_head,
)
from services.inference.api.refusals import RefusalLog
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import Target
from services.inference.api.v1 import csv_body
from services.inference.models.inputs import retained_bytes
from services.inference.models.table import LoadedModel

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

log = structlog.get_logger()


class PredictEndpoint:
    """The ASGI endpoint for predictions, whose steps gRPC calls too."""

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
        self._refusals = RefusalLog()

    async def __call__(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        rid = request_id(scope["headers"])
        status = 499
        try:
            prediction = await self._answer(target, scope, receive, started)
            status = 200
            await _send(send, prediction, request_id=rid)
            self.observe(prediction)
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
        address = scope["client"][0] if scope.get("client") else ""
        caller = await self.authorize(scope["headers"], address=address)
        model = await self.find_model(caller, target)
        head = read_head(scope["headers"], max_bytes=admission.max_body_bytes)
        admission.limiter.check(caller.account, kind=_kind(target))  # before the body costs time
        with admission.memory.reserve(caller.account) as memory:
            content = await read_body(receive, admission.max_body_bytes, memory)
            call = Call(caller, target, scope["path"], head, content, started)
            check = partial(check_wanted, scope, head, started=started)
            return await self.predict(call, model, memory, check=check)

    async def authorize(self, headers: list[tuple[bytes, bytes]], *, address: str) -> Caller:
        """Return the caller of a token or API key, and count the request against its rate limit.

        That is the account's, or with a test key the one of its test keys.

        Args:
            headers: the request's raw headers.
            address: the caller's IP address.

        Raises:
            Unauthenticated, InsufficientScope: the credentials are invalid, or have no such scope.
            AddressNotAllowed: the API key is limited to other addresses.
            RateLimited: the account is over its rate limit, or its test keys are over theirs.
            Unavailable: the credentials or the account's terms cannot be checked right now.
        """
        caller = await authenticate(self._admission.verifier, headers, address=address)
        check_scope(caller)
        if caller.is_test:
            self._admission.unbilled.admit(caller.account)
            return caller
        # From here on the account is known, so whatever is refused counts against its rate limit.
        leases = self._metering.leases
        if not leases.admit_now(caller.account):
            await leases.admit(caller.account)
        return caller

    async def find_model(self, caller: Caller, target: Target) -> LoadedModel:
        """Return the version that a request addresses; load it if necessary.

        Raises:
            ModelNotAllowed: the caller's API key is limited to other models.
            ModelNotFound: there is no such model or version.
            Unavailable: it cannot be loaded right now, or too many requests are in progress.
        """
        check_model(caller, target.model)
        model = self._models.table.find(target.model, target.version)
        if model is None:
            loading = ("load", target.model, target.version)
            with self._admission.limiter.acquire(caller.account, kind=loading):
                model = await self._models.loader.get(target.model, target.version)
        return model

    async def predict(
        self,
        call: Call,
        model: LoadedModel,
        memory: MemoryReservation,
        *,
        check: Callable[[], None],
    ) -> Prediction:
        """Answer a complete request and journal its usage.

        Args:
            memory: counts the bytes of the request's content already.
            check: raises Abandoned if nobody waits for the answer any more; called before work
                that had to wait for a thread begins.

        Raises:
            ServiceError: the request is refused; nothing is billed.
        """
        with self._admission.limiter.acquire(call.caller.account, kind=_kind(call.target)):
            return await self._predict(call, model, memory, check)

    async def _predict(
        self, call: Call, model: LoadedModel, memory: MemoryReservation, check: Callable[[], None]
    ) -> Prediction:
        """Answer a complete request, unless it has to wait for a thread and `check` fails then."""
        account, leases = call.caller.account, self._metering.leases
        steps.check_room(self._admission, self._metering)
        is_light = _is_light(call, model)
        decoded = await self._decoder.run(
            partial(steps.decode_body, call, model, self._admission.max_rows, is_light=is_light),
            is_light=is_light,
            account=account,
        )
        request, keyed_id, _ = decoded
        memory.grow(retained_bytes(request.arrays), is_complete=True)
        name = model.manifest.model + call.target.codec.price_suffix
        if call.caller.is_test:
            spending = await leases.quote(account, name)
        else:
            spending = await leases.spend(account, name, request.rows, event_id=keyed_id)
        try:
            check_deadline(call.head, started=call.started)
            # Compute before billing, so that a failure costs nothing.
            canaries = self._rollouts.canaries
            trial = canaries.trial(model.manifest) if call.target.version is None else None
            if trial is not None:
                model, response, encoded = await compute_in_trial(
                    self._models.engine,
                    canaries,
                    trial,
                    model,
                    request,
                    account=account,
                    check=check,
                )
            else:
                response, encoded = compute_now(model, request) or await compute(
                    self._models.engine, model, request, check=check
                )
            computed = response, encoded
            prediction = steps.new_prediction(
                call, model, decoded, computed, spending, size=memory.size
            )
            if spending.owed:
                await self._record(prediction)
                steps.remember([prediction], self._metering)
        except BaseException:
            spending.free()
            raise
        return prediction

    def _record(self, prediction: Prediction) -> Awaitable[None]:
        """Journal the usage event, in a span of the request's trace if it has one."""
        metering = self._metering
        if metering.tracing is not None and metering.tracing.is_recording:
            return self._record_traced(prediction, metering.tracing)
        return metering.journal.append(self._encode_event(prediction))

    async def _record_traced(self, prediction: Prediction, tracing: "Tracing") -> None:
        with tracing.start_handover("journal") as traceparent:
            event = self._encode_event(prediction, traceparent=traceparent)
            await self._metering.journal.append(event)

    def _encode_event(self, prediction: Prediction, *, traceparent: str | None = None) -> bytes:
        journal, now = self._metering.journal.id, self._metering.billing.now()
        return steps.encode_event(prediction, journal=journal, now=now, traceparent=traceparent)

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
        error = expected(error, path=scope["path"], request_id=rid)
        problem = error_response(error, path=scope["path"], request_id=rid)
        response = target.codec.encode_error(problem)
        response.headers["x-request-id"] = rid
        status = response.status_code
        self.report_refusal(error, target.model, status, path=scope["path"], request_id=rid)
        await response(scope, receive, send)
        return status

    def report_refusal(
        self, error: ServiceError, model: str, status: int, *, path: str, request_id: str
    ) -> None:
        """Count and log a refused request.

        Args:
            model: the name in the request, or "".
        """
        known = model if model in self._models.table else ""
        self._monitoring.metrics.refused(known, status)
        self._refusals.add(error, path=path, status=status, request_id=request_id)

    def observe(self, prediction: Prediction) -> None:
        """Pass an answered prediction to the metrics, drift, feedback and shadow."""
        steps.observe([prediction], monitoring=self._monitoring, rollouts=self._rollouts)


def expected(error: Exception, *, path: str, request_id: str) -> ServiceError:
    """Return an error that a caller may see; log any other, and return a 500 in its place."""
    if isinstance(error, ServiceError):
        return error
    log.error("request_failed", path=path, request_id=request_id, exc_info=error)
    return ServiceError()


def _kind(target: Target) -> Hashable:
    """Return what requests that take about as long have in common."""
    return target.codec.route, target.model, target.version


def _is_light(call: Call, model: LoadedModel) -> bool:
    """Return whether a body is decoded within milliseconds; a binary tensor of text may not be."""
    if call.head.is_csv:
        return len(call.content) <= csv_body.LIGHT_BYTES
    if len(call.content) > WHOLE_BYTES and call.head.json_length is not None:
        return model.inputs.numbers_only and json_body.is_light(call.content)
    return json_body.is_light(call.content)


async def _send(send: Send, prediction: Prediction, *, request_id: str) -> None:
    headers = steps.response_headers(prediction, request_id=request_id)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": prediction.encoded.content})
