"""The fast path: a prediction answered by plain function calls, without ASGI, task or future.

The HTTP protocol offers it every complete prediction request. It runs the steps of `predictions` in
their order. Where one of them would have to wait, or anything is unusual or wrong, it declines
without having had any effect, and the ordinary path answers. So it adds no rule of its own.
"""

import time
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache, partial
from typing import NamedTuple

import structlog
from starlette.types import Scope

from services.common.identity.guards import read_bearer
from services.common.telemetry.requests import request_id
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
from services.inference.api.reading import Head, read_head
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import Target, find_target
from services.inference.api.v2.document import JSON_LENGTH_HEADER
from services.inference.metering import events
from services.inference.metering.journal.journal import JournalBroken
from services.inference.models.inputs import retained_bytes

FAST_PATH = "fast_path"
"""Key of the `FastPath` in the app's lifespan state; without it, the app answers everything."""

MAX_TARGETS = 1_000
"""Paths whose targets are remembered."""

log = structlog.get_logger()

_UNUSUAL = frozenset({b"content-encoding", b"origin", b"traceparent"})
_OWN = frozenset({b"idempotency-key", JSON_LENGTH_HEADER})
_PLAIN = Head(None, 0, None)
_HEADERS = "%s" + "".join(f"{name}: %s\r\n" for name in steps.RECEIPT)


class Answer(NamedTuple):
    """A response with status 200: its header lines, and its body."""

    headers: bytes
    content: bytes


class Deferred(Enum):
    """The answer follows later, by a call of `respond`."""

    DEFERRED = auto()


DEFERRED = Deferred.DEFERRED
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
        self._targets: dict[str, Target] = {}

    def answer(self, scope: Scope, content: bytes, respond: Respond) -> Answer | Deferred | None:
        """Answer a complete POST request; return None, with no effect, to decline.

        Args:
            scope: needs the request's `method`, `path` and `headers`.
            respond: takes the answer if it has to wait until the usage event is synced to disk.
        """
        prediction = None
        try:
            prediction = self._predict(scope, content, time.perf_counter())
            if prediction is None:
                return None
            event = steps.encode_event(prediction, self._metering)
            answer = _answer(prediction, scope)
            is_durable = self._metering.journal.append_now(event)
        except Exception:  # the ordinary path meets it again, and reports it
            if prediction is not None:
                prediction.spending.free()
            return None
        if not is_durable:
            settle = partial(self._settle, prediction, answer, respond)
            self._metering.journal.append_later(event, settle)
            return DEFERRED
        self._observe(prediction)
        return answer

    def _predict(self, scope: Scope, content: bytes, started: float) -> Prediction | None:
        """Take the steps up to the spending, which is the only one that has an effect."""
        headers, path = scope["headers"], scope["path"]
        fields = dict(headers)
        if len(fields) < len(headers) or not _UNUSUAL.isdisjoint(fields):
            return None
        token = read_bearer(fields[b"authorization"])
        caller, target = self._admission.verifier.recall(token), self._find_target(path)
        if caller is None or target is None or len(content) > WHOLE_BYTES:
            return None
        steps.check_scope(caller)
        model = self._models.table.find(target.model, target.version)
        if model is None or self._is_on_trial(target) or self._is_traced(scope):
            return None
        metering = self._metering
        steps.check_room(self._admission, metering)
        head = _PLAIN if _OWN.isdisjoint(fields) else read_head(headers, max_bytes=WHOLE_BYTES)
        call = Call(caller, target, path, head, content, started)
        request, keyed_id = steps.decode_body(call, model, self._admission.max_rows)
        computed = compute_now(model, request)
        if computed is None:
            return None
        spending = metering.leases.admit_and_spend(caller.account, target.model, request.rows)
        if spending is None:
            return None
        size = len(content) + retained_bytes(request.arrays)
        event_id = keyed_id or events.new_id()
        return Prediction(
            caller,
            target,
            started,
            model,
            request,
            *computed,
            event_id,
            spending,
            size,
            keyed_id is not None,
        )

    def _find_target(self, path: str) -> Target | None:
        """Return what a path addresses; remembered for the models there are."""
        target = self._targets.get(path)
        if target is None:
            target = find_target(path)
            if target is not None and target.model in self._models.table:
                if len(self._targets) >= MAX_TARGETS:
                    self._targets.clear()
                self._targets[path] = target
        return target

    def _is_on_trial(self, target: Target) -> bool:
        return target.version is None and self._models.table.live(target.model).canary is not None

    def _is_traced(self, scope: Scope) -> bool:
        tracing = self._metering.tracing
        return tracing is not None and tracing.wants(scope)

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
            prediction.spending.free()
            respond(None)

    def _observe(self, prediction: Prediction) -> None:
        """Count a prediction that is billed; whatever goes wrong here, it is answered."""
        try:
            steps.remember(prediction, self._metering)
            steps.observe(prediction, monitoring=self._monitoring, rollouts=self._rollouts)
            seconds = time.perf_counter() - prediction.started
            self._monitoring.metrics.observe(prediction.target.codec.route, 200, seconds)
        except Exception:
            log.exception("observation_failed")


def _answer(prediction: Prediction, scope: Scope) -> Answer:
    encoded = prediction.encoded
    receipt = steps.receipt(prediction, request_id=request_id(scope["headers"]))
    headers = _HEADERS % (_lines(encoded.headers), *receipt)
    return Answer(headers.encode(), encoded.content)


@lru_cache(maxsize=100)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    return "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in headers)
