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

from starlette.types import Scope

from services.common.identity.guards import bearer_token
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
from services.inference.api.reading import read_head
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import Target, find_target
from services.inference.metering import events
from services.inference.metering.journal.journal import JournalBroken
from services.inference.models.inputs import retained_bytes
from services.inference.models.table import LoadedModel

FAST_PATH = "fast_path"
"""Key of the `FastPath` in the app's lifespan state; without it, the app answers everything."""

Headers = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """The headers and the body of a response with status 200."""

    headers: Headers
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

    def answer(self, scope: Scope, content: bytes, respond: Respond) -> Answer | Deferred | None:
        """Answer a complete POST request; return None, with no effect, to decline.

        Args:
            scope: needs the request's `method`, `path` and `headers`.
            respond: takes the answer if it has to wait until the usage event is synced to disk.
        """
        started = time.perf_counter()
        prediction = None
        try:
            prediction = self._predict(scope, content, started)
            if prediction is None:
                return None
            event = steps.encode_event(prediction, self._metering)
            if self._metering.journal.append_now(event):
                return self._finish(prediction, scope)
        except Exception:  # the ordinary path meets it again, and reports it
            if prediction is not None:
                prediction.spending.free()
            return None
        settle = partial(self._settle, prediction, scope, respond)
        self._metering.journal.append_later(event, settle)
        return DEFERRED

    def _predict(self, scope: Scope, content: bytes, started: float) -> Prediction | None:
        """Take the steps up to the spending, the only one that has an effect."""
        admission, metering, table = self._admission, self._metering, self._models.table
        target = find_target(scope["path"])
        caller = admission.verifier.recall(bearer_token(scope["headers"]))
        if target is None or caller is None or len(content) > WHOLE_BYTES:
            return None
        steps.check_scope(caller)
        model = table.find(target.model, target.version)
        if model is None or self._is_unusual(scope, target, model):
            return None
        head = read_head(scope["headers"], max_bytes=admission.max_body_bytes)
        steps.check_room(admission, metering)
        call = Call(caller, target, scope["path"], head, content, started)
        request, keyed_id = steps.decode_body(call, model, admission.max_rows)
        account, name, rows = caller.account, model.manifest.model, request.rows
        size = len(content) + retained_bytes(request.arrays)
        if not admission.has_room(account, size):
            return None
        if not metering.leases.can_spend(account, name, rows):
            return None
        computed = compute_now(model, request)
        if computed is None:
            return None
        metering.leases.admit_now(account)
        spending = metering.leases.spend_now(account, name, rows)
        if spending is None:
            raise AssertionError("can_spend has just promised it")
        return Prediction(
            caller,
            target,
            started,
            model,
            request,
            *computed,
            keyed_id or events.new_id(),
            spending,
            size,
            is_keyed=keyed_id is not None,
        )

    def _is_unusual(self, scope: Scope, target: Target, model: LoadedModel) -> bool:
        """Return whether a request is on trial, traced or from a web page."""
        if target.version is None and self._rollouts.canaries.trial(model.manifest) is not None:
            return True
        tracing = self._metering.tracing
        if tracing is not None and tracing.wants(scope):
            return True
        return any(name == b"origin" for name, _ in scope["headers"])

    def _settle(
        self,
        prediction: Prediction,
        scope: Scope,
        respond: Respond,
        error: JournalBroken | None,
    ) -> None:
        """Respond, now that the usage event is durable or failed to become so."""
        if error is None:
            respond(self._finish(prediction, scope))
        else:
            prediction.spending.free()
            respond(None)

    def _finish(self, prediction: Prediction, scope: Scope) -> Answer:
        """Return the answer of a journalled prediction, and count it."""
        steps.remember(prediction, self._metering)
        headers = steps.response_headers(prediction, request_id=request_id(scope["headers"]))
        steps.observe(prediction, monitoring=self._monitoring, rollouts=self._rollouts)
        seconds = time.perf_counter() - prediction.started
        self._monitoring.metrics.observe(prediction.target.codec.route, 200, seconds)
        return Answer(headers, prediction.encoded.content)
