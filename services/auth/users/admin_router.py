"""`/users` for administrators: list, disable, enable and invite users."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.auth.audit.requests import Address
from services.auth.callers import REQUIRE_ADMIN, AdminCaller, LoginNeeded, get_admin
from services.auth.models import User
from services.auth.users import mailed, service
from services.common.contracts import NOT_A_UUID, UUID_PATTERN
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.validation import matching

router = new_router(prefix="/users", tag="users")

MAX_PAGE = 1000
MAX_IDS = 100

_errors = (Unauthenticated, InsufficientScope, LoginNeeded)


_Id = Annotated[str, matching(UUID_PATTERN, NOT_A_UUID)]
_Cursor = Annotated[str, matching(rf"{UUID_PATTERN}|^$", "Invalid cursor.")]


class UserAdminRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    email: str
    name: str | None
    is_admin: bool
    created_at: datetime
    email_verified_at: datetime | None
    disabled_at: datetime | None


class UserPage(BaseModel):
    users: list[UserAdminRead]
    next_cursor: str | None = Field(description="Null on the last page.")


class UserSwitch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    disabled: bool


class Invitation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(max_length=1000, json_schema_extra={"format": "email"})


class Invited(BaseModel):
    status: str = "invited"


@router.get(
    "",
    response_model=UserPage,
    dependencies=[REQUIRE_ADMIN],
    responses=error_responses(*_errors, BodyInvalid),
)
async def list_users(
    session: Snapshot,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: _Cursor = "",
    id: Annotated[list[_Id] | None, Query(max_length=MAX_IDS)] = None,
) -> dict[str, Any]:
    """List all users, in the order of their ids; with `id`, only those that have one of the ids."""
    if id is not None:
        named = await service.list_users_by_ids(session, ids=set(id))
        return {"users": named, "next_cursor": None}
    users = await service.list_users(session, after=cursor, limit=limit + 1)
    page = users[:limit]
    return {"users": page, "next_cursor": page[-1].id if len(users) > limit else None}


async def _user(user_id: str, caller: AdminCaller, session: Transaction) -> User:
    """Find the user before the body is validated."""
    return await service.get_user_by_id(session, user_id=user_id)


@router.patch(
    "/{user_id}",
    response_model=UserAdminRead,
    responses=error_responses(
        *_errors, service.UserNotFound, service.LastAdministrator, BodyInvalid
    ),
)
async def update_user(
    user: Annotated[User, Depends(_user)],
    body: UserSwitch,
    caller: AdminCaller,
    session: Transaction,
    address: Address,
) -> User:
    """Disable or enable a user. A disabled user cannot sign in, and has no valid tokens."""
    admin = await get_admin(session, caller=caller)
    return await service.switch_user(
        session, user=user, disabled=body.disabled, actor=admin.id, address=address
    )


@router.post("/invite", status_code=202, responses=error_responses(*_errors, BodyInvalid))
async def invite_user(
    body: Invitation, caller: AdminCaller, session: Transaction, address: Address
) -> Invited:
    """Mail an invitation to register, which also works while registration is by invitation."""
    admin = await get_admin(session, caller=caller)
    await mailed.invite(session, email=body.email, admin=admin, address=address)
    return Invited()
