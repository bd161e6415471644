"""The OAuth endpoints: `/token` (RFC 6749), `/revoke` (RFC 7009), `/introspect` (RFC 7662)."""

from typing import Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict

from services.auth.audit.requests import Address
from services.auth.models import Client
from services.auth.openid.devices import DEVICE_GRANT, grant_device_code
from services.auth.openid.service import grant_authorization_code
from services.auth.state import AppIssuer
from services.auth.tokens import introspection, service
from services.auth.tokens.errors import (
    AccessDenied,
    AuthorizationPending,
    ExpiredToken,
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    MfaRequired,
    SlowDown,
    TemporarilyUnavailable,
    TooManyAttempts,
    TooManyRefreshes,
    UnauthorizedClient,
    UnsupportedGrantType,
    oauth_errors,
)
from services.auth.tokens.forms import OAuthForm, read_form
from services.auth.tokens.password_grant import grant_password
from services.auth.tokens.service import IssuedToken, Issuer
from services.common.errors import error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="tokens")

GRANT_TYPES = (
    "authorization_code",
    "password",
    "refresh_token",
    "client_credentials",
    DEVICE_GRANT,
)
_GRANTS_OF_PUBLIC_CLIENTS = ("authorization_code", "refresh_token", DEVICE_GRANT)


class TokenRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    refresh_token: str | None = None
    scope: str
    id_token: str | None = None


def _form_of(*names: str, required: tuple[str, ...]) -> dict[str, Any]:
    """Return the OpenAPI description of a form that the endpoint reads itself."""
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
    responses=error_responses(
        InvalidRequest,
        InvalidClient,
        InvalidGrant,
        InvalidScope,
        MfaRequired,
        AuthorizationPending,
        SlowDown,
        ExpiredToken,
        AccessDenied,
        UnauthorizedClient,
        UnsupportedGrantType,
        TooManyAttempts,
        TooManyRefreshes,
        TemporarilyUnavailable,
    ),
    openapi_extra=_form_of(
        "grant_type",
        "username",
        "password",
        "totp",
        "refresh_token",
        "code",
        "redirect_uri",
        "code_verifier",
        "device_code",
        "client_id",
        "client_secret",
        "scope",
        "account",
        required=("grant_type",),
    ),
)
@public
async def issue_token(
    request: Request, response: Response, issuer: AppIssuer, address: Address
) -> IssuedToken:
    """Issue an access token. `grant_type` is `password` (`username` is the e-mail address),
    `refresh_token`, `client_credentials` (with HTTP Basic or in the form), or, for public clients
    (`client_id`), `authorization_code` or that of device codes. Without `scope`, the token gets all
    scopes that may be granted. `account` chooses one of the user's accounts: the personal one (the
    default) or an organisation. Refreshing a token keeps its account."""
    with oauth_errors():
        form = await read_form(request)
        issued = await _grant(issuer, form, address=address)
    response.headers["Cache-Control"] = "no-store"
    return issued


@router.post(
    "/revoke",
    response_class=Response,
    responses=error_responses(InvalidRequest, InvalidClient, TemporarilyUnavailable),
    openapi_extra=_form_of("token", "token_type_hint", required=("token",)),
)
@public
async def revoke(request: Request, issuer: AppIssuer, address: Address) -> Response:
    """Revoke an access token, or a refresh token and all others of the sign-in. Unknown tokens also
    get 200."""
    with oauth_errors():
        form = await read_form(request)
        if form.client is not None:
            await service.authenticate_client(issuer, credentials=form.client, address=address)
        await introspection.revoke(issuer, token=form.require("token"), address=address)
    return Response(headers={"Cache-Control": "no-store"})


@router.post(
    "/introspect",
    responses=error_responses(InvalidRequest, InvalidClient, TemporarilyUnavailable),
    openapi_extra=_form_of("token", "token_type_hint", required=("token",)),
)
@public
async def introspect(
    request: Request, response: Response, issuer: AppIssuer, address: Address
) -> dict[str, Any]:
    """Return the claims of an access token or an API key if it is active. Requires an authenticated
    client; an account's client can only introspect the account's tokens and keys."""
    with oauth_errors():
        form = await read_form(request)
        if form.client is None:
            raise InvalidClient()
        client = await service.authenticate_client(issuer, credentials=form.client, address=address)
        if client.type == "public":
            raise InvalidClient()
        claims = await introspection.introspect(issuer, token=form.require("token"), client=client)
    response.headers["Cache-Control"] = "no-store"
    return claims


async def _grant(issuer: Issuer, form: OAuthForm, *, address: str) -> IssuedToken:
    grant_type, scope = form.require("grant_type"), form.fields.get("scope")
    account = form.fields.get("account")
    if grant_type not in GRANT_TYPES:
        raise UnsupportedGrantType()
    client = None
    if form.client is not None:
        client = await service.authenticate_client(issuer, credentials=form.client, address=address)
    if client is not None and client.type == "public":
        return await _grant_to_public_client(issuer, form, client, address=address)
    if client is None and grant_type not in ("password", "refresh_token"):
        raise InvalidClient()
    if client is not None and grant_type == "client_credentials":
        return await service.grant_client_credentials(
            issuer, client=client, scope=scope, account=account
        )
    if client is not None:
        raise UnauthorizedClient("This client may use client_credentials only.")
    if grant_type == "refresh_token":
        token = form.require("refresh_token")
        return await service.grant_refresh_token(
            issuer, refresh_token=token, scope=scope, account=account, address=address
        )
    return await grant_password(
        issuer,
        username=form.require("username"),
        password=form.require("password"),
        code=form.fields.get("totp"),
        scope=scope,
        account=account,
        address=address,
    )


async def _grant_to_public_client(
    issuer: Issuer, form: OAuthForm, client: Client, *, address: str
) -> IssuedToken:
    grant_type = form.require("grant_type")
    if grant_type not in _GRANTS_OF_PUBLIC_CLIENTS:
        grants = " or ".join(_GRANTS_OF_PUBLIC_CLIENTS)
        raise UnauthorizedClient(f"A public client may use {grants} only.")
    if grant_type == "authorization_code":
        return await grant_authorization_code(
            issuer,
            client=client,
            code=form.require("code"),
            redirect_uri=form.require("redirect_uri"),
            verifier=form.require("code_verifier"),
            address=address,
        )
    if grant_type == DEVICE_GRANT:
        code = form.require("device_code")
        return await grant_device_code(issuer, client=client, device_code=code, address=address)
    return await service.grant_refresh_token(
        issuer,
        refresh_token=form.require("refresh_token"),
        scope=form.fields.get("scope"),
        account=form.fields.get("account"),
        client_id=client.client_id,
        address=address,
    )
