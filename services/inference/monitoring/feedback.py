"""Record the true outcomes of predictions, and measure each version's accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Summary

from registry.feedback import Feedback, FeedbackStore
from registry.records import ColumnStatistics, Manifest, StoreError
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    ServiceError,
    Unavailable,
)
from services.common.identity.caller import Caller
from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.models.inputs import is_number
from services.inference.models.loader import Loader
from services.inference.monitoring.recent_predictions import RecentPredictions
from services.inference.thread_limiter import ThreadLimiter

WRITES_AT_ONCE = 8
WRITE_DEADLINE_S = 10.0
ERROR_SPANS = 10


class EventNotFound(NotFound):
    """The account has no such prediction, or billing has not received it yet."""

    code = "prediction_not_found"
    detail = "Prediction not found. A new prediction can take two seconds to appear."


class FeedbackDiffers(ServiceError):
    """A different outcome was already reported, and is kept."""

    status = 409
    code = "feedback_differs"
    detail = "A different outcome was already reported for this prediction."


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """The recorded feedback; `correct` has no value for regressions or if it is unknown."""

    version: str
    correct: bool | None
    repeated: bool


class FeedbackService:
    """Stores true outcomes, and counts correct and wrong predictions of each version."""

    def __init__(
        self,
        store: FeedbackStore,
        recent: RecentPredictions,
        billing: BillingClient,
        loader: Loader,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._recent = recent
        self._billing = billing
        self._loader = loader
        self._threads = ThreadLimiter(at_once=WRITES_AT_ONCE, deadline_s=WRITE_DEADLINE_S)
        self._rows = Counter(
            "tollgate_feedback_rows",
            "Rows with a reported true outcome, by how the prediction compared with it.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self._error = Summary(
            "tollgate_feedback_absolute_error",
            "Absolute errors of regression predictions against the true outcomes.",
            ["model", "version"],
            registry=registry,
        )

    async def record(
        self, caller: Caller, bearer: str, *, model: str, usage_event: str, label: Any
    ) -> FeedbackResult:
        """Store the true outcome of a prediction, and score the version.

        Args:
            bearer: the caller's token, used to look up the receipt in billing if another process
                made the prediction.
            label: the outcome; for a request of several rows, a list of them.

        Raises:
            EventNotFound: the caller has no such prediction by this model.
            InsufficientScope: another process made it, and the token may not read receipts.
            BodyInvalid: the model has no such label, or the number of labels is wrong.
            FeedbackDiffers: a different outcome was already reported.
            Unavailable: billing or the feedback store is unavailable.
        """
        recent = self._recent.find(usage_event)
        if recent is None or recent.account != caller.account:
            recent = None
            manifest, rows = await self._look_up(bearer, model, usage_event)
        else:
            manifest, rows = recent.manifest, len(recent.predictions)
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
            predictions=recent.predictions if recent else None,
            rows=recent.rows if recent else None,
            columns=[column.name for column in manifest.signature.columns],
            target=manifest.signature.target,
            time=datetime.now(UTC),
        )
        try:
            kept = await self._threads.run(self._store.add, given)
        except StoreError as error:
            raise Unavailable(
                "Feedback cannot be stored right now; retry in 5 s.", retry_after_s=5
            ) from error
        if kept.labels != given.labels:
            raise FeedbackDiffers()
        repeated = kept is not given
        if not repeated:
            self._count(manifest, given)
        return FeedbackResult(manifest.version, _is_correct(manifest, kept), repeated)

    async def _look_up(self, bearer: str, model: str, usage_event: str) -> tuple[Manifest, int]:
        """Return the version and the number of rows of a prediction, by its receipt in billing."""
        try:
            receipt = await self._billing.find_receipt(usage_event, bearer=bearer)
        except BillingError as error:
            if error.status == 403:
                raise InsufficientScope("usage:read") from error
            raise Unavailable(
                "Receipts are unavailable right now; retry in 5 s.", retry_after_s=5
            ) from error
        if receipt is None or receipt.model != model:
            raise EventNotFound()
        return (await self._loader.get(model, receipt.version)).manifest, receipt.rows

    def _count(self, manifest: Manifest, given: Feedback) -> None:
        key = manifest.model, manifest.version
        if given.predictions is None:
            self._rows.labels(*key, "unjudged").inc(len(given.labels))
            return
        for predicted, true in zip(given.predictions, given.labels, strict=True):
            if manifest.signature.classes is None:
                self._rows.labels(*key, "measured").inc()
                statistics = manifest.statistics
                target = statistics.target if statistics else None
                self._error.labels(*key).observe(
                    bounded_error(float(predicted), float(true), target)
                )
            else:
                self._rows.labels(*key, "correct" if predicted == true else "wrong").inc()


def _check(labels: Sequence[Any], manifest: Manifest, rows: int) -> None:
    """Validate labels.

    Raises:
        BodyInvalid: the number of labels is wrong, or the model has no such label.
    """
    if len(labels) != rows:
        message = f"Must have as many labels as the request has rows ({rows})."
        raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])
    classes = manifest.signature.classes
    if classes is None:
        if not all(map(is_number, labels)):
            message = "Must be a number within the range of float32."
            raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])
        return
    known = {(type(label), label) for label in classes}  # because 1, 1.0 and True are equal
    if not all((type(label), label) in known for label in labels):
        message = "Must be one of the model's classes."
        raise BodyInvalid([{"loc": ["body", "label"], "msg": message}])


def bounded_error(predicted: float, true: float, target: ColumnStatistics | None) -> float:
    """Return the absolute error of a prediction, capped.

    All accounts share a version's mean error, so a single outcome must not dominate it. The cap is
    ten times the span of the target in training, including zero.

    Args:
        target: the distribution of the target in training, if known.
    """
    error = abs(predicted - true)
    if target is None or target.min is None or target.max is None:
        return error
    span = max(target.max, 0.0) - min(target.min, 0.0)
    return min(error, ERROR_SPANS * span) if span else error


def _is_correct(manifest: Manifest, kept: Feedback) -> bool | None:
    if kept.predictions is None or manifest.signature.classes is None:
        return None
    return kept.predictions == kept.labels
