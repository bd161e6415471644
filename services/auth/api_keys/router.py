"""An account's API keys: credentials in one header, for inference and billing."""

from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Annotated, Any

from fastapi import Depends, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.auth.api_keys import service
from services.auth.api_keys.service import ManagedKey
from services.auth.audit.requests import Address, Failures
from services.auth.callers import LoginNeeded
from services.auth.models import ApiKey
from services.common.contracts import Name
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.api_keys import Mode
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope
from services.common.times import Instant

router = new_router(prefix="/api-keys", tag="API keys")

MAX_OVERLAP_S = 7 * 24 * 3600
_REFUSALS = (Unauthenticated, InsufficientScope, LoginNeeded)

KeyManager = Annotated[Caller, Depends(RequireScope("keys:write"))]


def _network(text: str) -> str:
    try:
        network = ip_network(text)
        is_one = network.prefixlen == network.max_prefixlen
        return str(network.network_address if is_one else network)
    except ValueError:
        raise PydanticCustomError(
            "network", "Must be an IP address or a network, such as 203.0.113.0/24."
        ) from None


Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]


class ApiKeyCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, examples=["website"])
    scope: str | None = Field(
        default=None, max_length=255, examples=["predict"], description="Default: both."
    )
    models: list[Name] | None = Field(
        default=None, min_length=1, max_length=50, description="The only models it may use."
    )
    expires_at: Instant | None = None
    allowed_ips: list[Network] | None = Field(
        default=None,
        min_length=1,
        max_length=50,
        description="The only addresses and networks that may use it.",
        examples=[["203.0.113.7", "2001:db8::/32"]],
    )
    mode: Mode = Field(default="live", description="`test` predicts without charge.")


class ApiKeyRotate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_seconds: int = Field(
        default=0, ge=0, le=MAX_OVERLAP_S, description="How long the old key still works."
    )


class ApiKeyRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    prefix: str = Field(description="The beginning of the key.")
    name: str
    scope: str
    models: list[str] | None
    allowed_ips: list[str] | None
    mode: Mode
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To within five minutes.")


class ApiKeyCreated(ApiKeyRead):
    key: str = Field(description="Shown only once.")


class ApiKeyList(BaseModel):
    api_keys: list[ApiKeyRead]


@router.post(
    "",
    status_code=201,
    response_model=ApiKeyCreated,
    responses=error_responses(*_REFUSALS, service.TooManyKeys, BodyInvalid),
)
async def create_api_key(
    body: ApiKeyCreate,
    caller: KeyManager,
    session: Transaction,
    response: Response,
    address: Address,
) -> dict[str, Any]:
    """Create an API key; its usage is billed to the token's account. An organisation's key stays
    when the member who created it leaves.

    Inference and billing accept it as `Authorization: Bearer <key>` or `X-API-Key: <key>`.
    """
    key, text = await service.create_key(
        session,
        caller=caller,
        name=body.name,
        scope=body.scope,
        models=body.models,
        allowed_ips=body.allowed_ips,
        expires_at=body.expires_at,
        mode=body.mode,
        address=address,
    )
    return _show_once(key, text, response)


@router.get("", response_model=ApiKeyList, responses=error_responses(*_REFUSALS))
async def list_api_keys(caller: KeyManager, session: Snapshot) -> dict[str, Any]:
    """Return the account's API keys, oldest first, without their texts."""
    return {"api_keys": await service.list_keys(session, caller=caller)}


async def _managed(
    id: str, caller: KeyManager, session: Transaction, address: Address, failures: Failures
) -> ManagedKey:
    """Lock the key before the body is validated."""
    try:
        return await service.lock_managed(session, caller=caller, key_id=id)
    except NotFound:
        failures.note("access_denied", actor=caller.author, target=id, address=address)
        raise


Managed = Annotated[ManagedKey, Depends(_managed)]


@router.post(
    "/{id}/rotate",
    status_code=201,
    response_model=ApiKeyCreated,
    responses=error_responses(*_REFUSALS, NotFound, service.KeyExpired, BodyInvalid),
)
async def rotate_api_key(
    managed: Managed,
    caller: KeyManager,
    session: Transaction,
    response: Response,
    address: Address,
    body: ApiKeyRotate | None = None,
) -> dict[str, Any]:
    """Replace an API key with a new one that may do the same.

    The old key works until `overlap_seconds` have passed, at most a week; by default it ends now.
    """
    overlap = timedelta(seconds=body.overlap_seconds if body else 0)
    key, text = await service.rotate_key(
        session, managed, caller=caller, overlap=overlap, address=address
    )
    return _show_once(key, text, response)


@router.delete("/{id}", status_code=204, responses=error_responses(*_REFUSALS, NotFound))
async def delete_api_key(
    managed: Managed, caller: KeyManager, session: Transaction, address: Address
) -> None:
    """Delete an API key."""
    await service.delete_key(session, managed, caller=caller, address=address)


def _show_once(key: ApiKey, text: str, response: Response) -> dict[str, Any]:
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyRead.model_validate(key).model_dump() | {"key": text}
