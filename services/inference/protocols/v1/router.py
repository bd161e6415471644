"""The KServe v1 protocol: what its documents are, and the routes that are not the hot path.

Predictions are answered by `predict.PredictEndpoint`, in front of FastAPI's router; `documented`
shows them in the OpenAPI document.
"""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel, Field
from starlette.convertors import Convertor, register_url_convertor

from services.common.errors import (
    BadRequest,
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import RequireScope
from services.common.model_store import Signature
from services.inference.metering.accounts import CreditReservedElsewhere, PaymentRequired
from services.inference.metering.journal import JournalFull
from services.inference.metering.rates import RateLimited
from services.inference.models.registry import ModelNotFound, Registry


class _ModelName(Convertor[str]):
    """A name without a colon: what follows one is a verb, and another route."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _ModelName())

Label = bool | int | float | str
Predicting = Depends(RequireScope("predict"))


class PredictParameters(BaseModel):
    probabilities: bool = Field(default=False, description="Classifiers only.")


class PredictRequest(BaseModel):
    """Rows to predict, each an object of named columns or a list in signature order."""

    instances: list[dict[str, Any] | list[Any]] = Field(
        min_length=1,
        examples=[[[14.2, 1.7, 2.4, 15.6, 127, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065]]],
    )
    parameters: PredictParameters = PredictParameters()


class PredictResponse(BaseModel):
    predictions: list[Label] = Field(description="A label or a number for each instance.")
    probabilities: list[list[float]] | None = Field(
        default=None, description="[rows, classes], in the order of the model's `classes`."
    )


class ModelList(BaseModel):
    models: list[str]


class ModelStatus(BaseModel):
    """A live model: what it takes, what it gives, and which version it is."""

    name: str
    ready: bool
    version: str
    release: int
    signature: Signature
    metrics: dict[str, Any]


router = new_router(tag="models")
router.responses = error_responses(Unauthenticated, InsufficientScope)


@router.get("/v1/models", dependencies=[Predicting])
async def list_models(request: Request) -> ModelList:
    """The names of the models being served."""
    registry: Registry = request.app.state.registry
    return ModelList(models=registry.names())


@router.get(
    "/v1/models/{model:name}", dependencies=[Predicting], responses=error_responses(ModelNotFound)
)
async def describe_model(model: str, request: Request) -> ModelStatus:
    """A model's live version: its columns, classes and metrics."""
    registry: Registry = request.app.state.registry
    live = registry.live(model)
    return ModelStatus(
        name=model,
        ready=True,
        version=live.manifest.version,
        release=live.release.number,
        signature=live.manifest.signature,
        metrics=live.manifest.metrics,
    )


documented = new_router(tag="predictions")


@documented.post(
    "/v1/models/{model}:predict",
    dependencies=[Predicting],
    responses=error_responses(
        Unauthenticated,
        InsufficientScope,
        ModelNotFound,
        BadRequest,
        PaymentRequired,
        BodyInvalid,
        RateLimited,
        JournalFull,
        CreditReservedElsewhere,
        Unavailable,
    ),
)
async def predict(
    model: str,
    body: PredictRequest,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="A repeat with the same account, key and body is never billed again.",
        ),
    ] = None,
) -> PredictResponse:
    """Predict, and pay for it: 1 request and as many rows as there are instances.

    The answer's headers are its receipt: `X-Model-Name`, `X-Model-Version`, `X-Usage-Event` (the
    id under which it is billed) and `X-Usage-Amount`. Only 2xx answers are billed, each once.
    """
    raise ModelNotFound()  # PredictEndpoint has answered every path that may name a model
