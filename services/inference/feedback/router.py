"""`POST /v1/models/{model}:feedback`: the true outcome of an earlier prediction."""

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import Caller, RequireScope, bearer_token
from services.common.model_records import Value
from services.inference.feedback.service import EventNotFound, FeedbackDesk, FeedbackDiffers
from services.inference.models.registry import ModelNotFound, Registry

_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    usage_event: str = Field(pattern=_UUID, description="`X-Usage-Event` of the prediction.")
    # One wrong label of thousands is described, not each.
    label: Value | Annotated[list[Value], Field(fail_fast=True)] = Field(
        description="The true outcome; a list, one for each row, if the request had several."
    )


class FeedbackRead(BaseModel):
    """What was made of it."""

    usage_event: str
    model: str
    version: str
    correct: bool | None = Field(
        description="Whether the prediction was right; null for numbers, or if it is not known."
    )
    repeated: bool = Field(description="It had been told before, and counts once.")


def known_model(model: str, request: Request) -> str:
    """The path's model; a dependency, so that 404 comes before what is wrong with the body."""
    registry: Registry = request.app.state.registry
    if model not in registry:
        raise ModelNotFound()
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
    caller: Annotated[Caller, Depends(RequireScope("predict"))],
    model: Annotated[str, Depends(known_model)],
    body: FeedbackRequest,
    request: Request,
) -> FeedbackRead:
    """Tell the true outcome of one of your predictions, for live accuracy by version; not billed.

    A prediction that another process answered is known by its receipt, so that the token needs
    `usage:read` as well.
    """
    desk: FeedbackDesk = request.app.state.feedback
    told = await desk.take(
        caller,
        bearer_token(request.scope["headers"]).decode("ascii"),
        model=model,
        usage_event=body.usage_event,
        label=body.label,
    )
    return FeedbackRead(
        usage_event=body.usage_event,
        model=model,
        version=told.version,
        correct=told.correct,
        repeated=told.repeated,
    )
