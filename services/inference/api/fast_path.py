"""The fast path: predictions answered by plain function calls, without ASGI, task or future.

The HTTP protocol offers it every complete prediction request. All that arrive in one turn of the
event loop are answered together at its end: each step of `predictions` is taken for all of them
before the next one, so they share a run of the model and a write to the journal. Where a step would
have to wait, or anything about a request is unusual or wrong, that request is declined without
having had any effect, and the ordinary path answers it. So this adds no rule of its own.
"""

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial

import structlog

from services.common.errors import ServiceError
from services.common.identity.guards import choose_credentials
from services.common.identity.tokens import token_digest
from services.common.telemetry.requests import given_request_id, new_request_id
from services.inference.api import steps, together
from services.inference.api.collaborators import (
    Admission,
    Metering,
    Models,
    Monitoring,
    Rollouts,
)
from services.inference.api.json_body import WHOLE_BYTES
from services.inference.api.offers import FastRequest, Offer, decline, send
from services.inference.api.reading import read_head
from services.inference.api.steps import Prediction
from services.inference.api.targets import Target, find_target
from services.inference.api.together import Answerable
from services.inference.metering.journal.journal import JournalBroken
from services.inference.models.table import LoadedModel

FAST_PATH = "fast_path"
"""Key of the `FastPath` in the app's lifespan state; without it, the app answers everything."""
MAX_OFFERS = 64
"""How many requests are answered together at most, so that the first need not wait for long."""

log = structlog.get_logger()

_UNUSUAL = frozenset({b"content-encoding", b"origin", b"traceparent"})


class FastPath:
    """Answers predictions that need not wait; created on the event loop that it serves."""

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
        self._loop = asyncio.get_running_loop()
        self._offers: list[Offer] = []
        self.tracing = metering.tracing

    def read_head(self, path: str, headers: list[tuple[bytes, bytes]]) -> FastRequest | None:
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
            given = choose_credentials(fields.get(b"authorization"), fields.get(b"x-api-key"))
            head = read_head(headers, max_bytes=min(WHOLE_BYTES, self._admission.max_body_bytes))
        except ServiceError:
            return None
        if head.is_csv:  # takes longer to parse than a prediction may
            return None
        return FastRequest(path, target, token_digest(given), head, given_request_id(headers))

    def take(self, offer: Offer) -> None:
        """Take a complete request, which is settled before the event loop reads further ones."""
        if not self._offers:
            self._loop.call_soon(self.flush)
        self._offers.append(offer)
        if len(self._offers) >= MAX_OFFERS:
            self.flush()

    def drop(self, offer: Offer) -> None:
        """Forget an offer whose client has gone."""
        with suppress(ValueError):
            self._offers.remove(offer)

    def flush(self) -> None:
        """Answer, defer or decline everything that was offered."""
        offers, self._offers = self._offers, []
        by_path: defaultdict[str, list[Offer]] = defaultdict(list)
        for offer in offers:
            by_path[offer.request.path].append(offer)
        for group in by_path.values():
            model = self._find_model(group[0].request.target, requests=len(group))
            if model is None:
                decline(group)
                continue
            for decoded in together.decode(group, model, self._admission):
                if answerable := together.predict(decoded, model, self._metering.leases):
                    self._record(answerable)

    def _find_model(self, target: Target, *, requests: int) -> LoadedModel | None:
        """Return the version that so many requests address, if their usage can be journalled."""
        try:
            steps.check_room(self._admission, self._metering, more=requests)
            return self._models.table.find_beyond_trial(target.model, target.version)
        except ServiceError:
            return None

    def _record(self, answerable: list[Answerable]) -> None:
        """Journal the usage events, and send the answers once they are durable."""
        journal, now = self._metering.journal, self._metering.billing.now()
        try:
            usage = [
                steps.encode_event(each, journal=journal.id, now=now) for _, each in answerable
            ]
            answers = [_answer(offer, prediction) for offer, prediction in answerable]
            is_durable = journal.append_now(usage)
        except Exception:
            self._withdraw(answerable)
            return
        settle = partial(self._settle, answerable, answers)
        if is_durable:
            settle(None)
        else:
            for offer, _ in answerable:
                offer.exchange.defer()
            journal.append_later(usage, settle)

    def _settle(
        self, answerable: list[Answerable], answers: list[bytes], error: JournalBroken | None
    ) -> None:
        """Respond, now that the usage events are durable or failed to become so."""
        if error is not None:
            self._withdraw(answerable)
            return
        for (offer, _), answer in zip(answerable, answers, strict=True):
            send(offer, answer)
        self._observe([prediction for _, prediction in answerable])

    def _withdraw(self, answerable: list[Answerable]) -> None:
        """Undo the spending, and let the ordinary path begin anew."""
        for offer, prediction in answerable:
            self._metering.leases.withdraw(prediction.caller.account, prediction.spending)
            decline([offer])

    def _observe(self, predictions: list[Prediction]) -> None:
        """Count predictions that are billed; whatever goes wrong here, they are answered."""
        try:
            steps.remember(predictions, self._metering)
            steps.observe(predictions, monitoring=self._monitoring, rollouts=self._rollouts)
            now, route = time.perf_counter(), predictions[0].target.codec.route
            self._monitoring.metrics.observe(
                route, 200, *[now - each.started for each in predictions]
            )
        except Exception:
            log.exception("observation_failed")


def _answer(offer: Offer, prediction: Prediction) -> bytes:
    request_id = offer.request.request_id or new_request_id()
    return steps.response_without_start(prediction, request_id=request_id)
