"""Judging predictions by their true outcomes: whose they are, what they were, how right."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Summary

from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    ServiceError,
    Unavailable,
)
from services.common.feedback_store import Feedback, FeedbackStore
from services.common.identity import Caller
from services.common.model_records import ColumnStatistics
from services.common.model_store import Manifest, StoreError
from services.inference.engine.blocking import Blocking
from services.inference.feedback.recent import Recent
from services.inference.metering.billing import BillingClient, BillingError
from services.inference.models.inputs import is_number
from services.inference.models.loader import Loader

WRITES_AT_ONCE = 8
WRITE_DEADLINE_S = 10.0
ERROR_SPANS = 10


class EventNotFound(NotFound):
    """The account has no such prediction, or billing has not heard of it yet."""

    code = "prediction_not_found"
    detail = "There is no such prediction of yours; one just made may take two seconds to be known."


class FeedbackDiffers(ServiceError):
    """Another outcome of this prediction was told before; that one stands."""

    status = 409
    code = "feedback_differs"
    detail = "Another outcome of this prediction was told before."


@dataclass(frozen=True, slots=True)
class Told:
    """What was made of a label; `correct` is None where that cannot be said."""

    version: str
    correct: bool | None
    repeated: bool


class FeedbackDesk:
    """Takes true outcomes, keeps them, and counts how right each version was."""

    def __init__(
        self,
        store: FeedbackStore,
        recent: Recent,
        billing: BillingClient,
        loader: Loader,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._recent = recent
        self._billing = billing
        self._loader = loader
        self._calls = Blocking(at_once=WRITES_AT_ONCE, deadline_s=WRITE_DEADLINE_S)
        self._rows = Counter(
            "model_feedback_rows",
            "Rows whose true outcome was told, by what the version had said of them.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self._error = Summary(
            "model_feedback_absolute_error",
            "Of regressions: how far the answers were from the true outcomes.",
            ["model", "version"],
            registry=registry,
        )

    async def take(
        self, caller: Caller, bearer: str, *, model: str, usage_event: str, label: Any
    ) -> Told:
        """Keep the true outcome of a prediction, and judge the version by it.

        Args:
            bearer: the caller's token, which shows billing whose the prediction is, if it was not
                made here.
            label: the outcome; a list of them if the request had several rows.

        Raises:
            EventNotFound: it is no prediction of this caller by this model.
            InsufficientScope: it was not made here, and the token may not read receipts.
            BodyInvalid: the version has no such label, or there are more or fewer than rows.
            FeedbackDiffers: another outcome was told before.
            Unavailable: billing or the store cannot be asked now.
        """
        answered = self._recent.find(usage_event)
        if answered is None or answered.account != caller.account:
            answered = None
            manifest, rows = await self._look_up(bearer, model, usage_event)
        else:
            manifest, rows = answered.manifest, len(answered.predictions)
        if manifest.model != model:
            raise EventNotFound()
        labels = label if isinstance(label, list) else [label]
        _check(labels, manifest, rows)
        given = Feedback(
            usage_event=usage_event,
            account=caller.account,
            model=model,
            version=manifest.version,
            labels=labels,
            predictions=answered.predictions if answered else None,
            rows=answered.rows() if answered else None,
            columns=[column.name for column in manifest.signature.columns],
            target=manifest.signature.target,
            time=datetime.now(UTC),
        )
        try:
            kept = await self._calls(self._store.add, given)
        except StoreError as error:
            raise Unavailable("The label cannot be kept now.", retry_after_s=5) from error
        if kept.labels != given.labels:
            raise FeedbackDiffers()
        repeated = kept is not given
        if not repeated:
            self._count(manifest, given)
        return Told(manifest.version, _is_correct(manifest, kept), repeated)

    async def _look_up(self, bearer: str, model: str, usage_event: str) -> tuple[Manifest, int]:
        """The version that answered, and the number of rows, by billing's receipt."""
        try:
            receipt = await self._billing.find_receipt(usage_event, bearer=bearer)
        except BillingError as error:
            if error.status == 403:
                raise InsufficientScope("usage:read") from error
            raise Unavailable("Receipts cannot be read now.", retry_after_s=5) from error
        if receipt is None or receipt.model != model:
            raise EventNotFound()
        return (await self._loader.get(model, receipt.version)).manifest, receipt.rows

    def _count(self, manifest: Manifest, given: Feedback) -> None:
        key = manifest.model, manifest.version
        if given.predictions is None:
            self._rows.labels(*key, "unjudged").inc(len(given.labels))
            return
        for said, true in zip(given.predictions, given.labels, strict=True):
            if manifest.signature.classes is None:
                self._rows.labels(*key, "measured").inc()
                statistics = manifest.statistics
                target = statistics.target if statistics else None
                self._error.labels(*key).observe(bounded_error(float(said), float(true), target))
            else:
                self._rows.labels(*key, "correct" if said == true else "wrong").inc()


def _check(labels: Sequence[Any], manifest: Manifest, rows: int) -> None:
    """Refuse labels that the model cannot have.

    Raises:
        BodyInvalid: there are more or fewer than rows, or one is no outcome of this model.
    """
    if len(labels) != rows:
        message = f"The request had {rows} rows, and a label is needed for each."
        raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])
    classes = manifest.signature.classes
    if classes is None:
        if not all(map(is_number, labels)):
            message = "Must be a number within the range of float32."
            raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])
        return
    known = {(type(label), label) for label in classes}  # 1, 1.0 and true are equal
    if not all((type(label), label) in known for label in labels):
        message = "The model has no such label."
        raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])


def bounded_error(said: float, true: float, target: ColumnStatistics | None) -> float:
    """Return how far an answer was from the true outcome, as far as that counts.

    The mean error of a version is everyone's, so one outcome counts for no more than ten times
    what the target spanned in training, zero included.

    Args:
        target: how the target was distributed in training, where that is known.
    """
    error = abs(said - true)
    if target is None or target.min is None or target.max is None:
        return error
    span = max(target.max, 0.0) - min(target.min, 0.0)
    return min(error, ERROR_SPANS * span) if span else error


def _is_correct(manifest: Manifest, kept: Feedback) -> bool | None:
    if kept.predictions is None or manifest.signature.classes is None:
        return None
    return kept.predictions == kept.labels
