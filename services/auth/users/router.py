"""Registration, and the caller's own user data."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from services.auth.audit.requests import Address
from services.auth.callers import get_user
from services.auth.models import User
from services.auth.passwords import PasswordHasher
from services.auth.users import service
from services.common.db.database import Snapshot, Transaction
from services.common.errors import BodyInvalid, ServiceError, Unauthenticated, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import AnyCaller, public

router = new_router(tag="users")


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(
        max_length=1000, examples=["ada@example.com"], json_schema_extra={"format": "email"}
    )
    password: str = Field(description="8 to 1024 characters.", examples=["correct horse battery"])


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The user's UUID: the `sub` of the user's tokens.")
    email: str = Field(description="Normalised, in lower case.")
    created_at: datetime


class InvitationNeeded(ServiceError):
    """Registration requires an invitation."""

    status = 403
    code = "invitation_needed"
    detail = "Registration is by invitation only; ask the operator to invite you."


def _hasher(request: Request) -> PasswordHasher:
    hasher: PasswordHasher = request.app.state.hasher
    return hasher


def _registration_is_open(request: Request) -> None:
    if request.app.state.registration != "open":
        raise InvitationNeeded()


async def _prepare_user(
    body: Registration, hasher: Annotated[PasswordHasher, Depends(_hasher)]
) -> User:
    return await service.prepare_user(hasher=hasher, email=body.email, password=body.password)


PreparedUser = Annotated[User, Depends(_prepare_user)]
"""Goes before `Transaction` in a signature, so that hashing does not use up its deadline."""


@router.post(
    "/register",
    status_code=201,
    response_model=UserRead,
    responses=error_responses(service.EmailTaken, InvitationNeeded, BodyInvalid),
    dependencies=[Depends(_registration_is_open)],
)
@public
async def register(
    body: Registration, prepared: PreparedUser, session: Transaction, address: Address
) -> User:
    """Register a user. All spellings of an e-mail (case, width, punycode) are the same user."""
    return await service.store_user(session, user=prepared, email=body.email, address=address)


@router.get("/users/me", response_model=UserRead, responses=error_responses(Unauthenticated))
async def read_own_user(caller: AnyCaller, session: Snapshot) -> User:
    """Return the calling user."""
    return await get_user(session, caller=caller)


@router.get("/userinfo", responses=error_responses(Unauthenticated))
async def userinfo(caller: AnyCaller, session: Snapshot) -> dict[str, Any]:
    """Return the calling user in OpenID Connect format (Core 1.0 §5.3); no e-mail is verified."""
    user = await get_user(session, caller=caller)
    return {"sub": user.id, "email": user.email, "email_verified": False}
