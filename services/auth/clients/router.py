"""An account's OAuth clients: credentials for programs."""

from datetime import datetime
from typing import Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from services.auth.audit.requests import Address, Failures
from services.auth.callers import LoginNeeded, person_id
from services.auth.clients import service
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import AnyCaller
from services.common.times import Instant

router = new_router(prefix="/clients", tag="clients")

_REFUSALS = (Unauthenticated, InsufficientScope)


class ClientCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, examples=["nightly job"])
    scope: str | None = Field(default=None, max_length=255, examples=["predict"])
    expires_at: Instant | None = Field(default=None, description="When it and its tokens expire.")


class ClientRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    client_id: str
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None


class ClientCreated(ClientRead):
    client_secret: str = Field(description="Shown only once; used with `client_credentials`.")


class ClientList(BaseModel):
    clients: list[ClientRead]


@router.post(
    "",
    status_code=201,
    response_model=ClientCreated,
    responses=error_responses(*_REFUSALS, LoginNeeded, service.TooManyClients, BodyInvalid),
)
async def create_client(
    body: ClientCreate,
    caller: AnyCaller,
    session: Transaction,
    address: Address,
    response: Response,
) -> dict[str, Any]:
    """Create credentials for a program; its usage is billed to the token's account. Those of an
    organisation need the scope `keys:write`, and stay when the member who created them leaves."""
    client, secret = await service.create_client(
        session,
        caller=caller,
        name=body.name,
        scope=body.scope,
        expires_at=body.expires_at,
        address=address,
    )
    response.headers["Cache-Control"] = "no-store"
    return ClientRead.model_validate(client).model_dump() | {"client_secret": secret}


@router.get("", response_model=ClientList, responses=error_responses(*_REFUSALS))
async def list_clients(caller: AnyCaller, session: Snapshot) -> dict[str, Any]:
    """Return the account's machine credentials, oldest first, without their secrets."""
    return {"clients": await service.list_clients(session, caller=caller)}


@router.delete(
    "/{client_id}",
    status_code=204,
    responses=error_responses(*_REFUSALS, LoginNeeded, NotFound),
)
async def delete_client(
    client_id: str,
    caller: AnyCaller,
    session: Transaction,
    address: Address,
    failures: Failures,
) -> None:
    """Delete machine credentials, and revoke their tokens."""
    try:
        await service.delete_client(session, caller=caller, client_id=client_id, address=address)
    except NotFound:
        actor = person_id(caller)
        failures.note("access_denied", actor=actor, target=client_id, address=address)
        raise
