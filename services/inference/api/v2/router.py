"""The Open Inference Protocol v2: its schemas, and every route except inference.

`predictions.PredictEndpoint` answers inference requests before they reach FastAPI's router. The
routes in `documented` exist only for the OpenAPI document.
"""

from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.common.errors import (
    BadRequest,
    InsufficientScope,
    ServiceError,
    Unauthenticated,
    Unavailable,
    error_response,
    error_responses,
)
from services.common.http.docs import operations
from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.common.identity.limits import AddressNotAllowed
from services.inference.access import ModelNotAllowed, Predicting
from services.inference.api.headers import IdempotencyKey, RequestTimeout, Tags
from services.inference.api.v2 import document, metadata
from services.inference.api.v2.metadata import Datatype, ModelMetadata, ServerMetadata
from services.inference.metering.journal.journal import JournalFull
from services.inference.metering.leases.accounts import CreditReservedElsewhere, PaymentRequired
from services.inference.metering.leases.rates import RateLimited
from services.inference.models.loader import Loader
from services.inference.models.table import ModelNotFound, ModelTable


class Live(BaseModel):
    live: bool


class Ready(Live):
    """The protocol's texts disagree on the name of the member, so both are there."""

    ready: bool


class ModelList(BaseModel):
    models: list[str]


class ModelReady(BaseModel):
    name: str
    ready: bool


class IndexRequest(BaseModel):
    ready: bool = Field(default=False, description="List only versions that are live or in memory.")


class IndexEntry(BaseModel):
    """A version; an `UNAVAILABLE` one is verified and loaded when it is first called."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
    live: bool


class InputTensor(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int] = Field(min_length=1, max_length=2)
    data: list[Any] = Field(
        description="Row-major: flat or a list of rows. null is a missing value."
    )
    parameters: dict[str, Any] | None = None


class WantedOutput(BaseModel):
    name: Literal["predict", "predict_proba"]
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """Tensors that match the model's metadata."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor] = Field(
        examples=[
            [
                {
                    "name": "features",
                    "datatype": "FP64",
                    "shape": [1, 13],
                    "data": [14.2, 1.7, 2.4, 15.6, 127, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065],
                }
            ]
        ]
    )
    outputs: list[WantedOutput] | None = Field(default=None, description="Default: all.")


class OutputTensor(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any]


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


router = new_router(tag="open inference protocol")
_DENIALS = (Unauthenticated, InsufficientScope)


@router.get("/v2", dependencies=[Predicting], responses=error_responses(*_DENIALS))
@router.get("/v2/", dependencies=[Predicting], include_in_schema=False)
async def describe_server(request: Request) -> ServerMetadata:
    """Return the server's name, version and supported protocol extensions."""
    return metadata.describe_server(request.app.version)


@router.get("/v2/health/live")
@public
async def is_live() -> Live:
    """Return 200 while the process is alive."""
    return Live(live=True)


@router.get("/v2/health/ready", responses=error_responses(Unavailable))
@public
async def is_ready(request: Request) -> Ready:
    """Return 200 when every live model can answer."""
    failing = await metadata.find_failing(request.app.state.checks)
    if failing is not None:
        raise Unavailable(f"Not ready: {failing}.")
    return Ready(live=True, ready=True)


@router.get("/v2/models", dependencies=[Predicting], responses=error_responses(*_DENIALS))
async def list_models(request: Request) -> ModelList:
    """Return the names of the models being served."""
    table: ModelTable = request.app.state.models
    return ModelList(models=table.names())


@router.get(
    "/v2/models/{model}",
    dependencies=[Predicting],
    responses=error_responses(*_DENIALS, ModelNotFound),
)
async def describe_model(model: str, request: Request) -> ModelMetadata:
    """Return the live version's inputs and outputs, and the versions of the model."""
    state = request.app.state
    return await metadata.describe_model(state.models, state.loader, model)


@router.get(
    "/v2/models/{model}/versions/{version}",
    dependencies=[Predicting],
    responses=error_responses(*_DENIALS, ModelNotFound, Unavailable),
)
async def describe_version(model: str, version: str, request: Request) -> ModelMetadata:
    """Return a version's inputs and outputs; loads the version if necessary."""
    state = request.app.state
    return await metadata.describe_model(state.models, state.loader, model, version)


@router.get(
    "/v2/models/{model}/ready",
    dependencies=[Predicting],
    responses=error_responses(*_DENIALS, ModelNotFound, Unavailable),
)
async def is_model_ready(model: str, request: Request) -> ModelReady:
    """Return 200 if the model's live version can answer."""
    state = request.app.state
    await metadata.find_manifest(state.models, state.loader, model, None)
    return ModelReady(name=model, ready=True)


@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    dependencies=[Predicting],
    responses=error_responses(*_DENIALS, ModelNotFound, Unavailable),
)
async def is_version_ready(model: str, version: str, request: Request) -> ModelReady:
    """Return 200 if the version can answer; loads it if necessary."""
    state = request.app.state
    await metadata.find_manifest(state.models, state.loader, model, version)
    return ModelReady(name=model, ready=True)


@router.post(
    "/v2/repository/index",
    dependencies=[Predicting],
    responses=error_responses(*_DENIALS, BadRequest, Unavailable),
)
async def list_repository(request: Request, wanted: IndexRequest | None = None) -> list[IndexEntry]:
    """List all models and versions, with those that are live or in memory."""
    table: ModelTable = request.app.state.models
    loader: Loader = request.app.state.loader
    only_ready = wanted is not None and wanted.ready
    return [
        entry
        for model in sorted(table.known.union(table.names()))
        for version in await loader.versions(model)
        if (entry := _entry(table, model, version)).state == "READY" or not only_ready
    ]


documented = new_router(tag="open inference protocol")
_REFUSALS = error_responses(
    Unauthenticated,
    InsufficientScope,
    ModelNotAllowed,
    AddressNotAllowed,
    ModelNotFound,
    BadRequest,
    PaymentRequired,
    RateLimited,
    JournalFull,
    CreditReservedElsewhere,
    Unavailable,
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **_REFUSALS,
    200: {"content": {"application/octet-stream": {}}},  # JSON followed by tensor bytes
}
_ERROR_CONTENT = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}},
        }
    }
}


@documented.post("/v2/models/{model}/infer", dependencies=[Predicting], responses=_ANSWERS)
async def infer(
    model: str,
    body: InferRequest,
    idempotency_key: IdempotencyKey = None,
    x_request_timeout: RequestTimeout = None,
    x_tags: Tags = None,
) -> InferResponse:
    """Predict with the live version. Bills one request and as many rows as the inputs have.

    The response headers are the receipt: `X-Model-Name`, `X-Model-Version`, `X-Usage-Event` (the
    id of the usage event) and `X-Usage-Amount`. Tensors can also be sent and requested as raw
    bytes after the JSON (`Inference-Header-Content-Length`, the binary tensor extension).
    """
    raise ModelNotFound()  # unreachable for model names: PredictEndpoint answers them


@documented.post(
    "/v2/models/{model}/versions/{version}/infer",
    dependencies=[Predicting],
    responses=_ANSWERS,
)
async def infer_with_version(
    model: str,
    version: str,
    body: InferRequest,
    idempotency_key: IdempotencyKey = None,
    x_request_timeout: RequestTimeout = None,
    x_tags: Tags = None,
) -> InferResponse:
    """Predict with any version that passed its gate; otherwise the same as without a version."""
    raise ModelNotFound()  # unreachable for model names: PredictEndpoint answers them


def amend_openapi(schema: dict[str, Any]) -> None:
    """Describe errors under `/v2` in the protocol's format."""
    for path, operation in operations(schema):
        if not _is_of_protocol(path):
            continue
        responses = operation["responses"]
        if "422" in responses:
            invalid = responses.pop("422")
            responses.setdefault("400", invalid)
        for status, response in responses.items():
            if status == "default" or int(status) >= 400:
                responses[status] = {**response, "content": _ERROR_CONTENT}


def refuse(error: ServiceError, *, path: str, request_id: str) -> Response:
    """Return the response for an error, in the protocol's format under `/v2`."""
    problem = error_response(error, path=path, request_id=request_id)
    return document.encode_error(problem) if _is_of_protocol(path) else problem


def _is_of_protocol(path: str) -> bool:
    return f"{path}/".startswith("/v2/")


def _entry(table: ModelTable, model: str, version: str) -> IndexEntry:
    live = table.is_live(model, version)
    ready = live or table.is_resident(model, version)
    return IndexEntry(
        name=model,
        version=version,
        state="READY" if ready else "UNAVAILABLE",
        reason="" if ready else "Loaded on the first request.",
        live=live,
    )
