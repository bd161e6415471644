"""Registration, and the caller's own account."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from services.auth.accounts import service
from services.auth.callers import get_user
from services.auth.models import User
from services.auth.passwords import PasswordHasher
from services.common.db import Snapshot, Transaction
from services.common.errors import BodyInvalid, ServiceError, Unauthenticated, error_responses
from services.common.http import new_router
from services.common.identity import AnyCaller

router = new_router(tag="accounts")


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(
        max_length=1000, examples=["ada@example.com"], json_schema_extra={"format": "email"}
    )
    password: str = Field(description="8 to 1024 characters.", examples=["correct horse battery"])


class AccountRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The account's UUID: the `sub` of its tokens.")
    email: str = Field(description="In its normal form, lower case.")
    created_at: datetime


class InvitationNeeded(ServiceError):
    """This installation does not take registrations without an invitation."""

    status = 403
    code = "invitation_needed"
    detail = "Registration here is by invitation only; ask the operator for an account."


def _hasher(request: Request) -> PasswordHasher:
    hasher: PasswordHasher = request.app.state.hasher
    return hasher


def _registration_is_open(request: Request) -> None:
    if request.app.state.registration != "open":
        raise InvitationNeeded()


async def _prepare_account(
    body: Registration, hasher: Annotated[PasswordHasher, Depends(_hasher)]
) -> User:
    return await service.prepare_account(hasher=hasher, email=body.email, password=body.password)


PreparedAccount = Annotated[User, Depends(_prepare_account)]
"""Comes before `Transaction` in a signature: hashing must not use up the transaction's deadline."""


@router.post(
    "/register",
    status_code=201,
    response_model=AccountRead,
    responses=error_responses(service.EmailTaken, InvitationNeeded, BodyInvalid),
    dependencies=[Depends(_registration_is_open)],
)
async def register(body: Registration, prepared: PreparedAccount, session: Transaction) -> User:
    """Create an account. Every spelling of an e-mail (case, width, punycode) is one account."""
    return await service.store_account(session, user=prepared, email=body.email)


@router.get("/users/me", response_model=AccountRead, responses=error_responses(Unauthenticated))
async def read_own_account(caller: AnyCaller, session: Snapshot) -> User:
    """The caller's own account."""
    return await get_user(session, caller=caller)


@router.get("/userinfo", responses=error_responses(Unauthenticated))
async def userinfo(caller: AnyCaller, session: Snapshot) -> dict[str, Any]:
    """The caller's account in OpenID Connect's words (Core 1.0 §5.3); no e-mail is verified."""
    user = await get_user(session, caller=caller)
    return {"sub": user.id, "email": user.email, "email_verified": False}
