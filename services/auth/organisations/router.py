"""Organisations, their members and the invitations to join them."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.failures import FailureLog
from services.auth.audit.requests import Address, Failures
from services.auth.callers import LoginNeeded, Person
from services.auth.links.service import LinkInvalid
from services.auth.models import Invitation, Membership, Organisation, User
from services.auth.organisations import invitations, service
from services.auth.organisations.memberships import LastOwner
from services.auth.organisations.service import Acting
from services.auth.roles import Role
from services.auth.tokens.guesses import TooManyGuesses
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    NotFound,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import AnyCaller, RequireScope

router = new_router(tag="organisations")

_PEOPLE = (Unauthenticated, LoginNeeded)
_MEMBERS = (*_PEOPLE, InsufficientScope, NotFound)


def _visible(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise PydanticCustomError("name", "Must be 1 to 100 printable characters.")
    return name


class OrganisationCreate(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_visible)] = Field(
        min_length=1, max_length=100, examples=["Analytical Engines"]
    )


class OrganisationRead(BaseModel):
    id: str = Field(description="The account's UUID: the `sub` of its tokens.")
    name: str
    role: Role = Field(description="The calling user's role.")


class OrganisationList(BaseModel):
    organisations: list[OrganisationRead]


class MemberPut(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(
        max_length=1000, examples=["ada@example.com"], json_schema_extra={"format": "email"}
    )
    role: Role


class MemberRead(BaseModel):
    id: str = Field(description="The user's UUID.")
    email: str
    name: str | None
    role: Role
    created_at: datetime = Field(description="When the user joined.")


class InvitationRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    email: str
    role: Role
    created_at: datetime
    expires_at: datetime


class MemberList(BaseModel):
    members: list[MemberRead]
    invitations: list[InvitationRead] = Field(description="Not accepted yet.")


class Acceptance(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=200, description="From the e-mail.")


Manager = Annotated[Caller, Depends(RequireScope(service.MANAGE))]


async def _reader(
    id: str, caller: AnyCaller, session: Snapshot, address: Address, failures: Failures
) -> Acting:
    return await _find_acting(session, caller, id, address, failures)


async def _manager(
    id: str, caller: Manager, session: Transaction, address: Address, failures: Failures
) -> Acting:
    return await _find_acting(session, caller, id, address, failures)


async def _member(
    id: str, caller: AnyCaller, session: Transaction, address: Address, failures: Failures
) -> Acting:
    return await _find_acting(session, caller, id, address, failures)


async def _find_acting(
    session: AsyncSession, caller: Caller, id: str, address: str, failures: FailureLog
) -> Acting:
    """Find the calling member before the body is validated."""
    try:
        return await service.find_acting(session, caller=caller, organisation_id=id)
    except NotFound:
        failures.note("access_denied", actor=caller.author, target=id, address=address)
        raise


@router.post(
    "/organisations",
    status_code=201,
    responses=error_responses(*_PEOPLE, service.TooManyOrganisations, BodyInvalid),
)
async def create_organisation(
    body: OrganisationCreate, user: Person, session: Transaction, address: Address
) -> OrganisationRead:
    """Create an organisation: an account with members, which the calling user owns. The form
    parameter `account` of `/token` requests tokens for it."""
    created = await service.create_organisation(session, user=user, name=body.name, address=address)
    return _organisation(*created)


@router.get("/organisations", responses=error_responses(*_PEOPLE))
async def list_organisations(caller: AnyCaller, session: Snapshot) -> OrganisationList:
    """Return the organisations that the calling user belongs to, oldest first."""
    own = await service.list_organisations(session, caller=caller)
    return OrganisationList(organisations=[_organisation(*each) for each in own])


@router.get("/organisations/{id}/members", responses=error_responses(*_MEMBERS))
async def list_members(
    acting: Annotated[Acting, Depends(_reader)], session: Snapshot
) -> MemberList:
    """Return the members of an organisation, and those who are invited."""
    members, invited = await service.list_members(session, acting=acting)
    return MemberList(
        members=[_read(*each) for each in members],
        invitations=[InvitationRead.model_validate(each) for each in invited],
    )


@router.put(
    "/organisations/{id}/members",
    response_model=MemberRead,
    responses=error_responses(
        *_MEMBERS,
        service.OwnerNeeded,
        LastOwner,
        service.TooManyMembers,
        TooManyGuesses,
        BodyInvalid,
    )
    | {202: {"description": "An invitation is sent by e-mail.", "model": InvitationRead}},
)
async def put_member(
    body: MemberPut,
    acting: Annotated[Acting, Depends(_manager)],
    session: Transaction,
    request: Request,
    address: Address,
) -> MemberRead | JSONResponse:
    """Add or invite a member, or change a member's role.

    An address without a user is invited by e-mail (202), and joins by registering or accepting
    through its link; if registration is by invitation, an administrator must invite it to register
    first. The invitation ends when its inviter may no longer invite. An address with a user joins
    at once, unless the registration mode keeps secret which addresses have users: then everyone is
    invited. A member who loses scopes loses the tokens for the organisation.
    """
    outcome = await service.put_member(
        session,
        acting=acting,
        email=body.email,
        role=body.role,
        secret=request.app.state.registration != "open",
        address=address,
    )
    if isinstance(outcome, Invitation):
        invitation = InvitationRead.model_validate(outcome)
        return JSONResponse(invitation.model_dump(mode="json"), status_code=202)
    return _read(*outcome)


@router.delete(
    "/organisations/{id}/members/{user_id}",
    status_code=204,
    responses=error_responses(*_MEMBERS, service.OwnerNeeded, LastOwner),
)
async def delete_member(
    user_id: str,
    acting: Annotated[Acting, Depends(_member)],
    session: Transaction,
    address: Address,
    failures: Failures,
) -> None:
    """Remove a member, whose tokens for the organisation end; or leave, which needs no scope; or
    withdraw an invitation by its id. The organisation's API keys and clients stay."""
    try:
        await service.delete_member(session, acting=acting, member_id=user_id, address=address)
    except NotFound:
        failures.note("access_denied", actor=acting.user.id, target=user_id, address=address)
        raise


@router.post("/invitations/accept", responses=error_responses(*_PEOPLE, LinkInvalid, BodyInvalid))
async def accept_invitation(
    body: Acceptance, user: Person, session: Transaction, address: Address, failures: Failures
) -> OrganisationRead:
    """Join an organisation by the token in an e-mail to the calling user's address."""
    try:
        joined = await invitations.accept(
            session, user=user, token=body.token, signed_in=True, address=address
        )
    except LinkInvalid:
        failures.note("link_rejected", actor=user.id, address=address)
        raise
    return _organisation(*joined)


def _organisation(organisation: Organisation, membership: Membership) -> OrganisationRead:
    return OrganisationRead(id=organisation.id, name=organisation.name, role=membership.role)


def _read(membership: Membership, user: User) -> MemberRead:
    return MemberRead(
        id=user.id,
        email=user.email,
        name=user.name,
        role=membership.role,
        created_at=membership.created_at,
    )
