"""Create and list organisations, and manage their members."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.callers import get_person
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import Invitation, Membership, Organisation, User
from services.auth.organisations import invitations, repository
from services.auth.organisations.memberships import (
    MANAGE,
    add_member,
    change_role,
    keep_an_owner,
    list_organisations_of,
    may_invite,
    member_name,
    remove_member,
)
from services.auth.roles import Role
from services.auth.tokens.guesses import TooManyGuesses, count_mail
from services.auth.users.emails import check_email
from services.auth.users.service import (
    find_user_by_email,
    is_enabled,
    lock_user,
    lock_users,
)
from services.common.errors import InsufficientScope, NotFound, ServiceError, Unauthenticated
from services.common.identity.caller import Caller

MAX_ORGANISATIONS = 100
"""Maximum number of organisations of a user who creates another one."""
MAX_MEMBERS = 1000
"""Maximum number of members and invitations of an organisation."""


class TooManyOrganisations(ServiceError):
    """The user already belongs to the maximum number of organisations."""

    status = 409
    code = "too_many_organisations"
    detail = f"You can belong to at most {MAX_ORGANISATIONS} organisations; leave one first."


class TooManyMembers(ServiceError):
    """The organisation already has the maximum number of members."""

    status = 409
    code = "too_many_members"
    detail = f"An organisation can have at most {MAX_MEMBERS} members; remove one first."


class OwnerNeeded(ServiceError):
    """Only an owner may appoint, change or remove owners."""

    status = 403
    code = "owner_needed"
    detail = "Only an owner may appoint, change or remove owners."


@dataclass(frozen=True, slots=True)
class Acting:
    """A member who acts in an organisation."""

    user: User
    organisation_id: str
    scopes: frozenset[str]
    """The scopes of the token that the member uses."""


async def create_organisation(
    session: AsyncSession, *, user: User, name: str, address: str
) -> tuple[Organisation, Membership]:
    """Create an organisation that a user owns.

    Raises:
        Unauthenticated: the user was deleted meanwhile.
        TooManyOrganisations: the user belongs to `MAX_ORGANISATIONS`.
    """
    if await lock_user(session, user_id=user.id) is None:
        raise Unauthenticated()
    if len(await list_organisations_of(session, user_id=user.id)) >= MAX_ORGANISATIONS:
        raise TooManyOrganisations()
    organisation = Organisation(id=str(uuid.uuid4()), name=name, created_at=datetime.now(UTC))
    await repository.add_organisation(session, organisation)
    membership = await add_member(session, organisation_id=organisation.id, user=user, role="owner")
    await record(
        session,
        "organisation_created",
        actor=user.id,
        target=organisation.id,
        address=address,
    )
    return organisation, membership


async def list_organisations(
    session: AsyncSession, *, caller: Caller
) -> Sequence[tuple[Organisation, Membership]]:
    """Return the calling user's organisations and memberships, oldest organisation first.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: the caller is a machine client.
    """
    user = await get_person(session, caller=caller)
    return await list_organisations_of(session, user_id=user.id)


async def find_acting(session: AsyncSession, *, caller: Caller, organisation_id: str) -> Acting:
    """Return the calling user as a member of an organisation.

    A token for the user's personal account or for the organisation will do.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: the caller is a machine client.
        NotFound: the user is no member, or the token is for another organisation.
    """
    user = await get_person(session, caller=caller)
    if caller.account not in (user.id, organisation_id):
        raise NotFound()
    acting = Acting(user, organisation_id, caller.scopes)
    await _find_role(session, acting)
    return acting


async def list_members(
    session: AsyncSession, *, acting: Acting
) -> tuple[Sequence[tuple[Membership, User]], Sequence[Invitation]]:
    """Return the members and the open invitations of an organisation, oldest first."""
    members = await repository.list_members(session, organisation_id=acting.organisation_id)
    invited = await repository.list_invitations(
        session, organisation_id=acting.organisation_id, now=datetime.now(UTC)
    )
    return members, invited


async def put_member(
    session: AsyncSession, *, acting: Acting, email: str, role: Role, secret: bool, address: str
) -> tuple[Membership, User] | Invitation:
    """Change a member's role, add a user as a member, or invite an address by e-mail.

    Args:
        email: as typed.
        secret: invite users, too, because which addresses have a user must not be disclosed.

    Raises:
        Unauthenticated: the acting user was meanwhile deleted or disabled.
        InsufficientScope: the acting member's role may not manage members.
        NotFound: the acting user is no longer a member.
        OwnerNeeded: the member is or becomes an owner, and the acting one is not.
        LastOwner: no other owner would be left.
        BodyInvalid: the e-mail address is malformed.
        TooManyMembers: the organisation has `MAX_MEMBERS`.
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    normal, organisation_id = check_email(email), acting.organisation_id
    found = await find_user_by_email(session, email=email)
    # An unknown address costs the same statement. The acting user is locked, too, because an
    # invitation ends with the inviter's right to invite.
    locked = await lock_users(session, user_ids=(acting.user.id, found.id if found else ""))
    if not is_enabled(locked.get(acting.user.id)):
        raise Unauthenticated()
    user = locked.get(found.id) if found else None
    acting_role = await _check_manager(session, acting)
    member = await repository.find_membership(
        session, organisation_id=organisation_id, user_id=user.id if user else ""
    )
    if user is not None and member is not None:
        if member.role != role:
            await keep_an_owner(session, membership=member)
            if "owner" in (member.role, role) and acting_role != "owner":
                raise OwnerNeeded()
            await change_role(
                session, membership=member, role=role, actor=acting.user.id, address=address
            )
        return member, user
    if role == "owner" and acting_role != "owner":
        raise OwnerNeeded()
    if await repository.count_members(session, organisation_id=organisation_id) >= MAX_MEMBERS:
        raise TooManyMembers()
    if user is not None and user.disabled_at is None and not secret:
        member = await add_member(session, organisation_id=organisation_id, user=user, role=role)
        with suppress(TooManyGuesses):  # an organisation cannot flood a mailbox with notices
            await count_mail(session, email=user.email, address=address)
            await queue_mail(
                session,
                Kind.ADDED,
                email=user.email,
                user_id=user.id,
                organisation_id=organisation_id,
            )
        await _record(session, acting, "member_added", member_name(member), address)
        return member, user
    return await invitations.invite(
        session,
        organisation_id=organisation_id,
        email=normal,
        role=role,
        actor=acting.user.id,
        address=address,
    )


async def delete_member(
    session: AsyncSession, *, acting: Acting, member_id: str, address: str
) -> None:
    """Remove a member, leave, or withdraw an invitation.

    Args:
        member_id: id of a user or an invitation.

    Raises:
        InsufficientScope: the token or the acting member's role may not manage members.
        NotFound: there is no such member or invitation, or the acting one was removed meanwhile.
        OwnerNeeded: the member is an owner, and the acting one is not.
        LastOwner: no other owner would be left.
    """
    organisation_id, leaves = acting.organisation_id, member_id == acting.user.id
    if not leaves and MANAGE not in acting.scopes:
        raise InsufficientScope(MANAGE)
    user = await lock_user(session, user_id=member_id)
    acting_role = await (_find_role if leaves else _check_manager)(session, acting)
    member = await repository.find_membership(
        session, organisation_id=organisation_id, user_id=user.id if user else ""
    )
    if member is None:
        if not await invitations.withdraw(
            session, organisation_id=organisation_id, invitation_id=member_id
        ):
            raise NotFound()
        target = f"{member_id}@{organisation_id}"
        await _record(session, acting, "invitation_withdrawn", target, address)
        return
    await keep_an_owner(session, membership=member)
    if member.role == "owner" and acting_role != "owner":
        raise OwnerNeeded()
    await remove_member(session, membership=member, actor=acting.user.id, address=address)


async def _find_role(session: AsyncSession, acting: Acting) -> Role:
    """Return the acting member's role as stored now.

    Raises:
        NotFound: the user is no member.
    """
    membership = await repository.find_membership(
        session, organisation_id=acting.organisation_id, user_id=acting.user.id
    )
    if membership is None:
        raise NotFound()
    return membership.role


async def _check_manager(session: AsyncSession, acting: Acting) -> Role:
    """Return the acting member's role, which must allow managing members.

    Raises:
        NotFound: the user is no member.
        InsufficientScope: the role does not allow it.
    """
    role = await _find_role(session, acting)
    if not may_invite(role):
        raise InsufficientScope(MANAGE)
    return role


async def _record(
    session: AsyncSession, acting: Acting, action: str, target: str, address: str
) -> None:
    await record(session, action, actor=acting.user.id, target=target, address=address)
