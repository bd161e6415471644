"""The OAuth endpoints: `/token` (RFC 6749), `/revoke` (RFC 7009), `/introspect` (RFC 7662)."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from services.auth.tokens import service
from services.auth.tokens.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    TemporarilyUnavailable,
    TooManyAttempts,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedTokenType,
    oauth_errors,
)
from services.auth.tokens.forms import OAuthForm, read_form
from services.auth.tokens.service import Issued, Issuer
from services.common.errors import documents
from services.common.http import new_router

router = new_router(tag="tokens")

GRANT_TYPES = ("password", "refresh_token", "client_credentials")


class TokenRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    refresh_token: str | None = None
    scope: str


def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.app.state.issuer
    return issuer


IssuerState = Annotated[Issuer, Depends(_issuer)]


def _form_of(*names: str, required: tuple[str, ...]) -> dict[str, Any]:
    """How the docs describe a form that the endpoint reads itself."""
    properties: dict[str, dict[str, Any]] = {name: {"type": "string"} for name in names}
    if "grant_type" in properties:
        properties["grant_type"]["enum"] = list(GRANT_TYPES)
    schema = {"type": "object", "properties": properties, "required": list(required)}
    content = {"application/x-www-form-urlencoded": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/token",
    response_model=TokenRead,
    response_model_exclude_none=True,
    responses=documents(
        InvalidRequest,
        InvalidClient,
        InvalidGrant,
        InvalidScope,
        UnauthorizedClient,
        UnsupportedGrantType,
        TooManyAttempts,
        TemporarilyUnavailable,
    ),
    openapi_extra=_form_of(
        "grant_type",
        "username",
        "password",
        "refresh_token",
        "client_id",
        "client_secret",
        "scope",
        required=("grant_type",),
    ),
)
async def issue_token(request: Request, response: Response, issuer: IssuerState) -> Issued:
    """Get an access token: `grant_type` is `password` (`username` is the e-mail),
    `refresh_token`, or `client_credentials` (by HTTP Basic or in the form). Without `scope`, all
    that may be granted is."""
    with oauth_errors():
        form = await read_form(request)
        issued = await _grant(issuer, form, address=request.client.host if request.client else "")
    response.headers["Cache-Control"] = "no-store"
    return issued


@router.post(
    "/revoke",
    response_class=Response,
    responses=documents(
        InvalidRequest, InvalidClient, UnsupportedTokenType, TemporarilyUnavailable
    ),
    openapi_extra=_form_of("token", "token_type_hint", required=("token",)),
)
async def revoke(request: Request, issuer: IssuerState) -> Response:
    """End a refresh token, and with it all that came of the same log-in. An unknown one is 200."""
    with oauth_errors():
        form = await read_form(request)
        if form.client is not None:
            await service.authenticate_client(issuer, shown=form.client)
        await service.revoke(issuer, token=form.need("token"))
    return Response(headers={"Cache-Control": "no-store"})


@router.post(
    "/introspect",
    responses=documents(InvalidRequest, InvalidClient, TemporarilyUnavailable),
    openapi_extra=_form_of("token", "token_type_hint", required=("token",)),
)
async def introspect(request: Request, response: Response, issuer: IssuerState) -> dict[str, Any]:
    """What an access token says, if it holds. For authenticated clients; a user's client learns of
    its owner's tokens only."""
    with oauth_errors():
        form = await read_form(request)
        if form.client is None:
            raise InvalidClient()
        client = await service.authenticate_client(issuer, shown=form.client)
        answer = await service.introspect(issuer, token=form.need("token"), client=client)
    response.headers["Cache-Control"] = "no-store"
    return answer


async def _grant(issuer: Issuer, form: OAuthForm, *, address: str) -> Issued:
    grant_type, scope = form.need("grant_type"), form.fields.get("scope")
    if grant_type not in GRANT_TYPES:
        raise UnsupportedGrantType()
    client = None
    if form.client is not None:
        client = await service.authenticate_client(issuer, shown=form.client)
    if grant_type == "client_credentials":
        if client is None:
            raise InvalidClient()
        return await service.grant_client_credentials(issuer, client=client, scope=scope)
    if client is not None:
        raise UnauthorizedClient("This client may use client_credentials only.")
    if grant_type == "refresh_token":
        token = form.need("refresh_token")
        return await service.grant_refresh_token(issuer, refresh_token=token, scope=scope)
    return await service.grant_password(
        issuer,
        username=form.need("username"),
        password=form.need("password"),
        scope=scope,
        address=address,
    )
