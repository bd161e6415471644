"""Registration, and the caller's own user data."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.requests import Address
from services.auth.callers import LoginNeeded, get_user, get_user_without_app
from services.auth.clients.credentials import find_client
from services.auth.links.service import LinkInvalid
from services.auth.models import User
from services.auth.state import AppHasher
from services.auth.tokens.guesses import TooManyGuesses
from services.auth.users import mailed, service
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import IDENTITY_SCOPES, AnyCaller, public

router = new_router(tag="users")

_ALL_CLAIMS = frozenset(IDENTITY_SCOPES)


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(
        max_length=1000, examples=["ada@example.com"], json_schema_extra={"format": "email"}
    )
    password: str = Field(description="8 to 1024 characters.", examples=["correct horse battery"])
    invitation: str | None = Field(
        default=None,
        max_length=200,
        description="The token in the e-mail that invites this address.",
    )


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The user's UUID: the `sub` of the user's tokens.")
    email: str = Field(description="Normalised, in lower case.")
    created_at: datetime


class OwnUserRead(UserRead):
    """A user's own record; what is not set is left out."""

    name: str | None = None
    email_verified_at: datetime | None = Field(
        default=None, description="When the user showed that the e-mail address is theirs."
    )
    totp_confirmed_at: datetime | None = Field(
        default=None, description="Since when a sign-in needs a second factor."
    )


class RegistrationMailed(BaseModel):
    status: str = "mailed"


async def _registration_mode(request: Request) -> str:
    mode: str = request.app.state.registration
    return mode


async def _may_register(
    body: Registration, mode: Annotated[str, Depends(_registration_mode)]
) -> None:
    if mode == "invite" and body.invitation is None:
        raise mailed.InvitationNeeded()


async def _prepare_user(body: Registration, hasher: AppHasher) -> User:
    return await service.prepare_user(hasher=hasher, email=body.email, password=body.password)


PreparedUser = Annotated[User, Depends(_prepare_user)]
"""Goes before `Transaction` in a signature, so that hashing does not use up its deadline."""


@router.post(
    "/register",
    status_code=201,
    response_model=UserRead,
    responses=error_responses(
        service.EmailTaken, mailed.InvitationNeeded, LinkInvalid, TooManyGuesses, BodyInvalid
    )
    | {202: {"description": "An e-mail with a link was sent.", "model": RegistrationMailed}},
    dependencies=[Depends(_may_register)],
)
@public
async def register(
    body: Registration,
    prepared: PreparedUser,
    session: Transaction,
    mode: Annotated[str, Depends(_registration_mode)],
    address: Address,
) -> User | JSONResponse:
    """Register a user. All spellings of an address (case, width, punycode) are the same user.

    If registration is by invitation, only an administrator's counts, not an organisation's.
    If registration is by e-mail, the response is always 202, and a link in the message completes
    it; if the address is taken, the message says so.
    """
    if body.invitation is not None:
        return await mailed.accept_invitation(
            session,
            prepared=prepared,
            email=body.email,
            token=body.invitation,
            mode=mode,
            address=address,
        )
    if mode == "verify":
        await mailed.request_registration(session, prepared=prepared, address=address)
        return JSONResponse(RegistrationMailed().model_dump(), status_code=202)
    return await service.store_user(session, user=prepared, email=body.email, address=address)


@router.get(
    "/users/me",
    response_model=OwnUserRead,
    response_model_exclude_none=True,
    responses=error_responses(Unauthenticated, LoginNeeded),
)
async def read_own_user(caller: AnyCaller, session: Snapshot) -> User:
    """Return the calling user."""
    return await get_user_without_app(session, caller=caller)


@router.get("/userinfo", responses=error_responses(Unauthenticated, LoginNeeded, InsufficientScope))
async def userinfo(caller: AnyCaller, session: Snapshot) -> dict[str, Any]:
    """Return the calling user in OpenID Connect format (Core 1.0 §5.3). An app that the user signed
    in to needs the scope `openid`, and `email` and `profile` for more than `sub`."""
    user = await get_user(session, caller=caller)
    scopes = await _claim_scopes(session, caller)
    if "openid" not in scopes:
        raise InsufficientScope("openid")
    claims: dict[str, Any] = {"sub": user.id}
    if "email" in scopes:
        claims |= {"email": user.email, "email_verified": user.email_verified_at is not None}
    if "profile" in scopes and user.name:
        claims["name"] = user.name
    return claims


router.post("/userinfo", include_in_schema=False)(userinfo)  # Core 1.0 §5.3.1 wants both


async def _claim_scopes(session: AsyncSession, caller: Caller) -> frozenset[str]:
    """Return the OpenID Connect scopes of a token; those without consent have all of them."""
    app = await find_client(session, client_id=caller.client_id)
    return caller.scopes if app is not None and app.type == "public" else _ALL_CLAIMS
