"""`POST /v1/models/{model}:feedback`: the true outcome of an earlier prediction."""

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from registry.records import Value
from services.common.contracts import NOT_A_UUID, UUID_PATTERN
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import read_credentials
from services.common.validation import matching
from services.inference.access import PredictingCaller
from services.inference.models.table import ModelNotFound, ModelTable
from services.inference.monitoring.feedback import EventNotFound, FeedbackDiffers, FeedbackService


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    usage_event: str = matching(
        UUID_PATTERN, NOT_A_UUID, description="`X-Usage-Event` of the prediction."
    )
    # Report the first invalid label only: there can be thousands.
    label: Value | Annotated[list[Value], Field(fail_fast=True)] = Field(
        description="The true outcome; for a request of several rows, a list with one for each."
    )


class FeedbackRead(BaseModel):
    """The recorded feedback."""

    usage_event: str
    model: str
    version: str
    correct: bool | None = Field(
        description="Whether the prediction was right; null for regressions, or if it is unknown."
    )
    repeated: bool = Field(
        description="Whether this outcome was already recorded; a repeat does not count again."
    )


async def known_model(model: str, request: Request) -> str:
    """Return the path's model. A dependency, so that a 404 precedes validation of the body."""
    table: ModelTable = request.app.state.models
    if model not in table:
        raise ModelNotFound(f"Model '{model}' not found.")
    return model


router = new_router(tag="feedback")


@router.post(
    "/v1/models/{model}:feedback",
    responses=error_responses(
        Unauthenticated,
        InsufficientScope,
        ModelNotFound,
        EventNotFound,
        FeedbackDiffers,
        BodyInvalid,
        Unavailable,
    ),
)
async def give_feedback(
    caller: PredictingCaller,
    model: Annotated[str, Depends(known_model)],
    body: FeedbackRequest,
    request: Request,
) -> FeedbackRead:
    """Report the true outcome of one of your predictions, to measure live accuracy. Not billed.

    If another process made the prediction, it is looked up by its receipt, and the token also needs
    the scope `usage:read`.
    """
    service: FeedbackService = request.app.state.feedback
    result = await service.record(
        caller,
        read_credentials(request.scope["headers"]).decode("ascii"),
        model=model,
        usage_event=body.usage_event,
        label=body.label,
    )
    return FeedbackRead(
        usage_event=body.usage_event,
        model=model,
        version=result.version,
        correct=result.correct,
        repeated=result.repeated,
    )
