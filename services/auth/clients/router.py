"""An account's OAuth clients: credentials for programs, and apps that people sign in to."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from services.auth.audit.requests import Address, Failures
from services.auth.callers import LoginNeeded
from services.auth.clients import service
from services.auth.clients.redirects import MAX_URIS, find_problem
from services.auth.clients.service import ClientAddresses
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


def _redirect_uri(uri: str) -> str:
    if problem := find_problem(uri):
        raise ValueError(problem)
    return uri


RedirectUris = Annotated[
    list[Annotated[str, AfterValidator(_redirect_uri)]],
    Field(max_length=MAX_URIS, examples=[["https://app.example.com/callback"]]),
]


class ClientCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, examples=["nightly job"])
    type: Literal["confidential", "public"] = Field(
        default="confidential",
        description="`confidential`: a program with a secret. `public`: an app that people sign in "
        "to, in a browser or on their machine, which cannot keep a secret.",
    )
    redirect_uris: RedirectUris = Field(
        default=[],
        description="Where a public client gets its codes: https, or http on a loopback address. "
        "Compared exactly, except for the port of `127.0.0.1` and `[::1]`.",
    )
    post_logout_redirect_uris: RedirectUris = Field(
        default=[], description="Where a public client may send people after they signed out."
    )
    scope: str | None = Field(default=None, max_length=255, examples=["predict"])
    expires_at: Instant | None = Field(default=None, description="When it and its tokens expire.")

    @model_validator(mode="after")
    def _has_addresses_if_public(self) -> Self:
        if self.type == "public" and not self.redirect_uris:
            raise ValueError("A public client needs `redirect_uris`.")
        if self.type == "confidential" and (self.redirect_uris or self.post_logout_redirect_uris):
            raise ValueError("Only a public client has redirect URIs.")
        return self


class ClientRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    client_id: str
    name: str
    type: Literal["confidential", "public"]
    redirect_uris: list[str]
    post_logout_redirect_uris: list[str]
    scope: str
    created_at: datetime
    expires_at: datetime | None


class ClientCreated(ClientRead):
    client_secret: str | None = Field(
        default=None,
        description="Shown only once; used with `client_credentials`. A public client has none.",
    )


class ClientList(BaseModel):
    clients: list[ClientRead]


@router.post(
    "",
    status_code=201,
    response_model=ClientCreated,
    response_model_exclude_unset=True,
    responses=error_responses(*_REFUSALS, LoginNeeded, service.TooManyClients, BodyInvalid),
)
async def create_client(
    body: ClientCreate,
    caller: AnyCaller,
    session: Transaction,
    address: Address,
    response: Response,
) -> dict[str, Any]:
    """Create credentials for a program, whose usage is billed to the token's account, or register
    an app that people sign in to. Clients of an organisation need the scope `keys:write`, and stay
    when the member who created them leaves."""
    addresses = None
    if body.type == "public":
        addresses = ClientAddresses(body.redirect_uris, body.post_logout_redirect_uris)
    client, secret = await service.create_client(
        session,
        caller=caller,
        name=body.name,
        scope=body.scope,
        expires_at=body.expires_at,
        addresses=addresses,
        address=address,
    )
    response.headers["Cache-Control"] = "no-store"
    shown_once = {"client_secret": secret} if secret else {}
    return ClientRead.model_validate(client).model_dump() | shown_once


@router.get("", response_model=ClientList, responses=error_responses(*_REFUSALS, LoginNeeded))
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
        actor = caller.author
        failures.note("access_denied", actor=actor, target=client_id, address=address)
        raise
