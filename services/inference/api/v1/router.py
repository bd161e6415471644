"""The KServe v1 protocol: its schemas, and every route except predictions.

`predictions.PredictEndpoint` answers predictions before they reach FastAPI's router. The routes in
`documented` exist only for the OpenAPI document.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.convertors import Convertor, register_url_convertor

from registry.records import Signature
from services.common.errors import (
    BadRequest,
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.limits import AddressNotAllowed
from services.inference.access import ModelNotAllowed, Predicting
from services.inference.api.headers import IdempotencyKey, RequestTimeout, Tags
from services.inference.api.reading import Abandoned
from services.inference.api.v1.explanations import NotExplainable
from services.inference.metering.journal.journal import JournalFull
from services.inference.metering.leases.accounts import CreditReservedElsewhere, PaymentRequired
from services.inference.metering.leases.rates import RateLimited
from services.inference.models.table import ModelNotFound, ModelTable


class _ModelName(Convertor[str]):
    """A model name; it stops at a colon, which begins a verb and belongs to another route."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _ModelName())

Label = bool | int | float | str


class PredictParameters(BaseModel):
    probabilities: bool = Field(default=False, description="Classifiers only.")
    intervals: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Add intervals or label sets that hold the truth with this probability.",
    )


class PredictRequest(BaseModel):
    """Rows to predict, each an object of named columns or a list in signature order."""

    instances: list[dict[str, Any] | list[Any]] = Field(
        min_length=1,
        examples=[[[14.2, 1.7, 2.4, 15.6, 127, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065]]],
    )
    parameters: PredictParameters = PredictParameters()


class PredictResponse(BaseModel):
    predictions: list[Label] = Field(description="One label or number per instance.")
    probabilities: list[list[float]] | None = Field(
        default=None, description="[rows, classes], in the order of the model's `classes`."
    )
    intervals: list[tuple[float, float]] | None = Field(
        default=None, description="Regression: [low, high] per instance."
    )
    label_sets: list[list[Label]] | None = Field(
        default=None, description="Classification: the plausible labels of each instance."
    )


class ExplainParameters(BaseModel):
    top: int | None = Field(
        default=None, ge=1, description="How many columns to name; the others are summed."
    )


class ExplainRequest(BaseModel):
    """Rows to predict and explain, as for a prediction."""

    instances: list[dict[str, Any] | list[Any]] = Field(
        min_length=1,
        examples=[[[14.2, 1.7, 2.4, 15.6, 127, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065]]],
    )
    parameters: ExplainParameters = ExplainParameters()


class Explanation(BaseModel):
    """Why a prediction is what it is: `base` plus all contributions is the model's output."""

    base: float = Field(description="The output expected without knowing any column.")
    contributions: dict[str, float] = Field(
        description="What each column adds; with `top`, the rest is under `(other)`."
    )
    approximate: bool = Field(description="Whether the contributions were sampled.")


class ExplainResponse(BaseModel):
    predictions: list[Label] = Field(description="One label or number per instance.")
    explanations: list[Explanation] = Field(description="One per instance.")


class ModelList(BaseModel):
    models: list[str]


class DeprecationRead(BaseModel):
    """Callers should leave the version: deprecated `since`, and it may stop at `sunset`."""

    since: datetime
    sunset: datetime


class ModelStatus(BaseModel):
    """The live version of a model: its signature and its metrics."""

    name: str
    ready: bool
    version: str
    release: int
    signature: Signature
    metrics: dict[str, Any]
    deprecation: DeprecationRead | None


router = new_router(tag="models")
router.responses = error_responses(Unauthenticated, InsufficientScope)


@router.get("/v1/models", dependencies=[Predicting])
async def list_models(request: Request) -> ModelList:
    """Return the names of the models being served."""
    table: ModelTable = request.app.state.models
    return ModelList(models=table.names())


@router.get(
    "/v1/models/{model:name}", dependencies=[Predicting], responses=error_responses(ModelNotFound)
)
async def describe_model(model: str, request: Request) -> ModelStatus:
    """Return the live version of a model: its columns, classes and metrics."""
    table: ModelTable = request.app.state.models
    live = table.live(model)
    deprecation = table.deprecations(model).get(live.manifest.version)
    return ModelStatus(
        name=model,
        ready=True,
        version=live.manifest.version,
        release=live.release.number,
        signature=live.manifest.signature,
        metrics=live.manifest.metrics,
        deprecation=deprecation and DeprecationRead.model_validate(asdict(deprecation)),
    )


documented = new_router(tag="predictions")
REFUSALS = (
    Unauthenticated,
    InsufficientScope,
    ModelNotAllowed,
    AddressNotAllowed,
    ModelNotFound,
    BadRequest,
    PaymentRequired,
    BodyInvalid,
    RateLimited,
    JournalFull,
    CreditReservedElsewhere,
    Abandoned,
    Unavailable,
)


@documented.post(
    "/v1/models/{model}:predict",
    dependencies=[Predicting],
    responses=error_responses(*REFUSALS),
    openapi_extra={"requestBody": {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def predict(
    model: str,
    body: PredictRequest,
    idempotency_key: IdempotencyKey = None,
    x_request_timeout: RequestTimeout = None,
    x_tags: Tags = None,
) -> PredictResponse:
    """Predict with the live version. Bills one request and one row per instance.

    The rows can also be CSV, with a first row of column names. The answer is the same.

    The response headers are the receipt: `X-Model-Name`, `X-Model-Version`, `X-Usage-Event` (the
    id of the usage event) and `X-Usage-Amount`. Only 2xx responses are billed, each once.
    """
    raise ModelNotFound()  # unreachable for model names: PredictEndpoint answers them


@documented.post(
    "/v1/models/{model}:explain",
    dependencies=[Predicting],
    responses=error_responses(*REFUSALS, NotExplainable),
)
async def explain(
    model: str,
    body: ExplainRequest,
    idempotency_key: IdempotencyKey = None,
    x_request_timeout: RequestTimeout = None,
    x_tags: Tags = None,
) -> ExplainResponse:
    """Predict with the live version, and state what each column contributes.

    For a regression, the contributions add up to the value. For a classification, they add up to
    the raw score (log-odds) of the predicted class if the model has one, else to its probability.
    Billed like a prediction, at the price of `<model>:explain` if the plan has one.
    """
    raise ModelNotFound()  # unreachable, like `predict`
