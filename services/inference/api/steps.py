"""The steps of a prediction that never wait, as plain functions.

`predictions` runs them between the steps that may wait; they can also be run in one go.
"""

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from registry.runtimes.runtime import InferenceResponse
from services.common.identity.caller import Caller
from services.inference.access import check_model, check_scope
from services.inference.api.codec import Body, EncodedResponse, InferenceRequest
from services.inference.api.collaborators import Admission, Metering, Monitoring, Rollouts
from services.inference.api.reading import Head
from services.inference.api.targets import Target
from services.inference.metering import events
from services.inference.metering.leases.spending import Spending
from services.inference.models.table import LoadedModel
from services.inference.monitoring.answered import AnsweredRequest
from services.inference.rollouts.shadow import ShadowRequest

RECEIPT = (
    "content-length",
    "x-request-id",
    "x-model-name",
    "x-model-version",
    "x-usage-event",
    "x-usage-amount",
)
"""The headers of every 200, besides those that describe its body."""

_LINES = "%s" + "".join(f"{name}: %s\r\n" for name in RECEIPT) + "\r\n"


class Call(NamedTuple):
    """A complete request from an authorized caller; `started` is on the performance counter."""

    caller: Caller
    target: Target
    path: str
    head: Head
    content: bytes
    started: float


class Prediction(NamedTuple):
    """A prediction, the version that made it, and its usage event; `size` in bytes of memory.

    It does not keep the body, so that the memory is free while a slow client reads the answer. It
    is keyed if its `event_id` comes from an `Idempotency-Key`.
    """

    caller: Caller
    target: Target
    started: float
    model: LoadedModel
    request: InferenceRequest
    response: InferenceResponse
    encoded: EncodedResponse
    event_id: str
    spending: Spending
    size: int
    input_sha256: str
    is_keyed: bool
    tags: str | None


def recall_now(admission: Admission, digest: bytes, model: str) -> Caller | None:
    """Return the caller of credentials that are known, if the fast path may answer.

    Test keys and keys limited to addresses are rare, and left to the ordinary path.

    Raises:
        InsufficientScope, ModelNotAllowed: the caller may not predict, or not with this model.
    """
    caller = admission.verifier.recall(digest)
    if caller is None:
        return None
    check_scope(caller)
    if caller.limits is None:
        return caller
    check_model(caller, model)
    return caller if caller.limits.is_only_of_models else None


def check_room(admission: Admission, metering: Metering, *, more: int = 0) -> None:
    """Check that the usage of one more prediction can be journalled, or of `more`.

    Raises:
        JournalFull, JournalBroken: it cannot.
    """
    metering.journal.check_room(in_flight=admission.limiter.taken + more)


class DecodedBody(NamedTuple):
    """A decoded body, and what of its raw bytes is in the usage event."""

    request: InferenceRequest
    keyed_id: str | None
    """The event id that the `Idempotency-Key` determines, if there is one."""
    input_sha256: str
    """The digest of the whole body, in hexadecimal."""


def decode_body(
    call: Call, model: LoadedModel, max_rows: int, *, is_light: bool = False
) -> DecodedBody:
    """Return the decoded body.

    Args:
        is_light: whether the body is known to take only milliseconds to parse.

    Raises:
        BodyInvalid: the body violates the protocol or the model's signature.
    """
    codec, key = call.target.codec, call.head.idempotency_key
    body = Body(call.content, call.head.json_length, call.head.is_csv, is_light)
    request = codec.decode(body, model, max_rows)
    digest = sha256(call.content)
    if key is None:
        return DecodedBody(request, None, digest.hexdigest())
    identity = codec.identity(body)
    of_identity = digest if identity is call.content else sha256(identity)  # in v1 it is
    keyed_id = events.keyed_id(
        account=call.caller.account,
        key=key,
        path=call.path,
        body_sha256=of_identity.digest(),
    )
    return DecodedBody(request, keyed_id, digest.hexdigest())


def new_prediction(
    call: Call,
    model: LoadedModel,
    decoded: DecodedBody,
    computed: tuple[InferenceResponse, EncodedResponse],
    spending: Spending,
    *,
    size: int,
) -> Prediction:
    """Return a prediction; its usage event gets a new id unless a key determines it."""
    return Prediction(
        call.caller,
        call.target,
        call.started,
        model,
        decoded.request,
        *computed,
        decoded.keyed_id or events.new_id(),
        spending,
        size,
        decoded.input_sha256,
        is_keyed=decoded.keyed_id is not None,
        tags=call.head.tags,
    )


def encode_event(
    prediction: Prediction, *, journal: str, now: float, traceparent: str | None = None
) -> bytes:
    """Return the usage event of a prediction, as the journal takes it.

    Args:
        journal: the journal's id.
        now: seconds since the epoch on billing's clock.
    """
    manifest, caller = prediction.model.manifest, prediction.caller
    return events.encode(
        event_id=prediction.event_id,
        account=caller.account,
        client_id=caller.client_id,
        journal=journal,
        model=prediction.spending.billed_as or manifest.model,
        version=manifest.version,
        rows=prediction.request.rows,
        price_id=prediction.spending.price_id,
        input_sha256=prediction.input_sha256,
        latency_ms=(time.perf_counter() - prediction.started) * 1000,
        now=now,
        api_key=caller.api_key,
        tags=prediction.tags,
        traceparent=traceparent,
    )


def remember(predictions: Sequence[Prediction], metering: Metering) -> None:
    """Remember the keyed ones of predictions that have been journalled, for their repeats."""
    for each in predictions:
        if each.is_keyed:
            metering.leases.remember(each.event_id, each.spending)


def receipt(prediction: Prediction, *, request_id: str) -> tuple[int | str, ...]:
    """Return the values of the `RECEIPT` headers."""
    manifest = prediction.model.manifest
    return (
        len(prediction.encoded.content),
        request_id,
        manifest.model,
        manifest.version,
        prediction.event_id,
        prediction.spending.usage_amount(),
    )


def response_headers(prediction: Prediction, *, request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a 200: those of the body, the version and the rate limit, then the
    receipt."""
    values = receipt(prediction, request_id=request_id)
    named = zip(RECEIPT, values, strict=True)
    return [
        *prediction.encoded.headers,
        *prediction.model.headers,
        *((name.lower().encode(), value.encode()) for name, value in _limits(prediction)),
        *((name.encode(), str(value).encode()) for name, value in named),
    ]


def response_without_start(prediction: Prediction, *, request_id: str) -> bytes:
    """Return the same headers as lines, and the body; no value can hold a line end."""
    encoded = prediction.encoded
    first = _as_lines(encoded.headers + prediction.model.headers)
    first += "".join([f"{name}: {value}\r\n" for name, value in _limits(prediction)])
    lines = _LINES % (first, *receipt(prediction, request_id=request_id))
    return lines.encode() + encoded.content


def _limits(prediction: Prediction) -> Iterable[tuple[str, str]]:
    """Return the header fields of the account's rate limit, if it has one."""
    bucket = prediction.spending.bucket
    return () if bucket is None else bucket.fields().items()


@lru_cache(maxsize=100)
def _as_lines(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    return "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in headers)


def observe(
    predictions: Sequence[Prediction], *, monitoring: Monitoring, rollouts: Rollouts
) -> None:
    """Pass answered predictions of one version to the metrics, drift, feedback and shadow."""
    model, manifest = predictions[0].model, predictions[0].model.manifest
    answered = [
        AnsweredRequest(
            each.event_id,
            each.caller.account,
            each.request.arrays,
            each.response.predictions,
            each.size,
        )
        for each in predictions
    ]
    rows = sum([each.request.rows for each in predictions])
    monitoring.metrics.answered(manifest, requests=len(predictions), rows=rows)
    monitoring.drift.sample(model, answered)
    monitoring.recent.add(manifest, answered)
    if rollouts.shadows.wanted(manifest.model):
        for prediction, each in zip(predictions, answered, strict=True):
            if prediction.target.version is None:
                request = ShadowRequest(manifest, each.arrays, each.predictions, each.size)
                rollouts.shadows.offer(request)
