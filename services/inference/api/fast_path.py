"""The fast path: a prediction answered by plain function calls, without ASGI, task or future.

The HTTP protocol offers it every complete prediction request. It runs the steps of `predictions` in
their order. Where one of them would have to wait, or anything is unusual or wrong, it declines
without having had any effect, and the ordinary path answers. So it adds no rule of its own.
"""

import time
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

import structlog

from services.common.errors import ServiceError
from services.common.identity.guards import read_bearer
from services.common.telemetry.requests import given_request_id, new_request_id
from services.inference.api import steps
from services.inference.api.collaborators import (
    Admission,
    Metering,
    Models,
    Monitoring,
    Rollouts,
)
from services.inference.api.computing import compute_now
from services.inference.api.json_body import WHOLE_BYTES
from services.inference.api.reading import Head, check_deadline, read_head
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import Target, find_target
from services.inference.metering import events
from services.inference.metering.journal.journal import JournalBroken
from services.inference.models.inputs import retained_bytes

FAST_PATH = "fast_path"
"""Key of the `FastPath` in the app's lifespan state; without it, the app answers everything."""

log = structlog.get_logger()

_UNUSUAL = frozenset({b"content-encoding", b"origin", b"traceparent"})


class FastRequest(NamedTuple):
    """What the head of a request says; the same for every request with the same head."""

    path: str
    target: Target
    token: bytes
    head: Head
    request_id: str | None


class Answer(NamedTuple):
    """A response with status 200: its header lines, and its body."""

    headers: bytes
    content: bytes


class Deferred(Enum):
    """The answer follows later, by a call of `respond`."""

    DEFERRED = auto()


DEFERRED = Deferred.DEFERRED
Headers = list[tuple[bytes, bytes]]
Respond = Callable[[Answer | None], None]
"""Takes a deferred answer, or None if the ordinary path must answer after all."""


class FastPath:
    """Answers predictions that need not wait."""

    def __init__(
        self,
        *,
        admission: Admission,
        models: Models,
        metering: Metering,
        rollouts: Rollouts,
        monitoring: Monitoring,
    ) -> None:
        self._admission = admission
        self._models = models
        self._metering = metering
        self._rollouts = rollouts
        self._monitoring = monitoring
        self.tracing = metering.tracing

    def read_head(self, path: str, headers: Headers) -> FastRequest | None:
        """Read the head of a POST request; return None if the ordinary path must answer it."""
        fields = dict(headers)
        target = find_target(path)
        if (
            target is None
            or target.model not in self._models.table
            or len(fields) < len(headers)
            or b"content-length" not in fields
            or not _UNUSUAL.isdisjoint(fields)
        ):
            return None
        try:
            token = read_bearer(fields.get(b"authorization", b""))
            head = read_head(headers, max_bytes=min(WHOLE_BYTES, self._admission.max_body_bytes))
        except ServiceError:
            return None
        return FastRequest(path, target, token, head, given_request_id(headers))

    def answer(
        self, request: FastRequest, content: bytes, respond: Respond
    ) -> Answer | Deferred | None:
        """Answer a complete request; return None, with no effect, to decline.

        Args:
            respond: takes the answer if it has to wait until the usage event is synced to disk.
        """
        prediction = None
        try:
            prediction = self._predict(request, content, time.perf_counter())
            if prediction is None:
                return None
            event = steps.encode_event(prediction, self._metering)
            own_id = request.request_id or new_request_id()
            lines = steps.response_lines(prediction, request_id=own_id)
            answer = Answer(lines, prediction.encoded.content)
            is_durable = self._metering.journal.append_now(event)
        except Exception:  # the ordinary path meets it again, and reports it
            if prediction is not None:
                self._withdraw(prediction)
            return None
        if not is_durable:
            settle = partial(self._settle, prediction, answer, respond)
            self._metering.journal.append_later(event, settle)
            return DEFERRED
        self._observe(prediction)
        return answer

    def _predict(self, request: FastRequest, content: bytes, started: float) -> Prediction | None:
        """Take the steps up to the spending, which is the only one that has an effect."""
        admission, metering, target = self._admission, self._metering, request.target
        caller = admission.verifier.recall(request.token)
        if caller is None:
            return None
        steps.check_scope(caller)
        model = self._models.table.find_beyond_trial(target.model, target.version)
        if model is None:
            return None
        steps.check_room(admission, metering)
        call = Call(caller, target, request.path, request.head, content, started)
        check_deadline(request.head, started=started)
        body, keyed_id = steps.decode_body(call, model, admission.max_rows)
        computed = compute_now(model, body)
        if computed is None:
            return None
        spending = metering.leases.admit_and_spend(caller.account, target.model, body.rows)
        if spending is None:
            return None
        return Prediction(
            caller,
            target,
            started,
            model,
            body,
            *computed,
            keyed_id or events.new_id(),
            spending,
            len(content) + retained_bytes(body.arrays),
            keyed_id is not None,
        )

    def _settle(
        self,
        prediction: Prediction,
        answer: Answer,
        respond: Respond,
        error: JournalBroken | None,
    ) -> None:
        """Respond, now that the usage event is durable or failed to become so."""
        if error is None:
            respond(answer)
            self._observe(prediction)
        else:
            self._withdraw(prediction)
            respond(None)

    def _withdraw(self, prediction: Prediction) -> None:
        """Undo the spending, for the ordinary path to begin anew."""
        self._metering.leases.withdraw(prediction.caller.account, prediction.spending)

    def _observe(self, prediction: Prediction) -> None:
        """Count a prediction that is billed; whatever goes wrong here, it is answered."""
        try:
            steps.remember(prediction, self._metering)
            steps.observe(prediction, monitoring=self._monitoring, rollouts=self._rollouts)
            seconds = time.perf_counter() - prediction.started
            self._monitoring.metrics.observe(prediction.target.codec.route, 200, seconds)
        except Exception:
            log.exception("observation_failed")
