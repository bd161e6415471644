"""Which accounts a user can act for, and what begins and ends with a membership.

Every change of a membership locks the user first, then the owners of the organisation. A sign-in
locks its user, and a refresh its sign-in, which a change deletes before it revokes the tokens. So
no token is issued by a role that is just being taken away. The one who invites is locked, too, so
that invitations that end with the inviter's role miss none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import Invitation, Membership, Organisation, User
from services.auth.organisations import repository
from services.auth.revocations.service import find_last_revocation, publish
from services.auth.roles import PERSONAL, ROLE_SCOPES, Role, loses_scopes, scopes_of
from services.auth.tokens.logins import end_logins
from services.auth.users.shapes import LoginUser
from services.common.errors import ServiceError

MANAGE = "members:write"
"""The scope of those who manage and invite members."""


class LastOwner(ServiceError):
    """The organisation would be left without an owner."""

    status = 409
    code = "last_owner"
    detail = "This is the last owner of an organisation; appoint another one first."


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a user can act for."""

    id: str
    role: Role
    scope: str
    """All scopes that the user's tokens for it may have, separated by spaces."""
    tokens_from: datetime | None
    """The user's tokens for it that were issued earlier are revoked."""


async def find_account(
    session: AsyncSession, *, user: LoginUser, account_id: str | None = None
) -> Account | None:
    """Return an account of a user, by default the personal one; None if it is not theirs."""
    if account_id is None or account_id == user.id:
        scope = scopes_of(PERSONAL, is_admin=user.is_admin)
        return Account(user.id, PERSONAL, scope, user.tokens_from)
    membership = await repository.find_membership(
        session, organisation_id=account_id, user_id=user.id
    )
    if membership is None:
        return None
    scope = scopes_of(membership.role, is_admin=user.is_admin)
    ends = [each for each in (user.tokens_from, membership.tokens_from) if each is not None]
    return Account(account_id, membership.role, scope, max(ends, default=None))


async def find_organisation(session: AsyncSession, *, organisation_id: str) -> Organisation | None:
    """Return the organisation with this id."""
    return await repository.find_organisation(session, organisation_id=organisation_id)


async def list_organisations_of(
    session: AsyncSession, *, user_id: str
) -> Sequence[tuple[Organisation, Membership]]:
    """Return a user's organisations and memberships, oldest organisation first."""
    return await repository.list_organisations(session, user_id=user_id)


async def add_member(
    session: AsyncSession, *, organisation_id: str, user: User, role: Role
) -> Membership:
    """Make a user, whom the caller has locked, a member; the address's invitation ends.

    Tokens of an earlier membership stay revoked.
    """
    tokens_from = await find_last_revocation(
        session, kind="user", target_id=user.id, account=organisation_id
    )
    membership = Membership(
        organisation_id=organisation_id,
        user_id=user.id,
        role=role,
        created_at=datetime.now(UTC),
        tokens_from=tokens_from,
    )
    await repository.add_membership(session, membership)
    await repository.delete_invitation_to(
        session, organisation_id=organisation_id, email=user.email
    )
    return membership


async def change_role(
    session: AsyncSession, *, membership: Membership, role: Role, actor: str, address: str
) -> None:
    """Give a member, whose user the caller has locked, another role.

    If the new role has fewer scopes, the member's tokens for the organisation are revoked. The
    member's invitations to roles that the member may no longer give end.
    """
    old, membership.role = membership.role, role
    await session.flush()
    if loses_scopes(old, role):
        await _end_tokens(session, membership=membership)
    target = member_name(membership)
    await record(session, "member_role_changed", actor=actor, target=target, address=address)
    if not may_invite(role):
        await _end_invitations_to(session, membership=membership, actor=actor, address=address)
    elif role != "owner":
        await _end_invitations_to(
            session, membership=membership, role="owner", actor=actor, address=address
        )


async def remove_member(
    session: AsyncSession, *, membership: Membership, actor: str, address: str
) -> None:
    """End a membership, whose user the caller has locked, its tokens and the member's
    invitations."""
    await repository.delete_membership(session, membership)
    await _end_tokens(session, membership=membership)
    action = "member_left" if actor == membership.user_id else "member_removed"
    await record(session, action, actor=actor, target=member_name(membership), address=address)
    await _end_invitations_to(session, membership=membership, actor=actor, address=address)


async def end_invitations_by(
    session: AsyncSession, *, user_id: str, actor: str, address: str | None
) -> None:
    """End all invitations to organisations by a user, whom the caller has locked."""
    ended = await repository.delete_invitations_by(session, user_id=user_id)
    await _record_ended(session, ended, actor=actor, address=address)


def may_invite(role: Role) -> bool:
    """Return whether members with this role may invite and manage others."""
    return MANAGE in ROLE_SCOPES[role]


async def leave_all(session: AsyncSession, *, user: User, address: str) -> None:
    """End all memberships of a user who is being deleted, and whom the caller has locked.

    Raises:
        LastOwner: an organisation would be left without an enabled owner.
    """
    own = await repository.list_organisations(session, user_id=user.id)
    for membership in sorted((each for _, each in own), key=lambda each: each.organisation_id):
        await keep_an_owner(session, membership=membership)
        await repository.delete_membership(session, membership)
        await record(
            session, "member_left", actor=user.id, target=member_name(membership), address=address
        )
    await end_invitations_by(session, user_id=user.id, actor=user.id, address=address)


def member_name(membership: Membership) -> str:
    """Return how the audit log names a member: `<user>@<organisation>`."""
    return f"{membership.user_id}@{membership.organisation_id}"


async def keep_an_owner(session: AsyncSession, *, membership: Membership) -> None:
    """Refuse to lose an organisation's last owner; locks its owners until the transaction ends.

    Raises:
        LastOwner: the member is the only enabled owner.
    """
    if membership.role != "owner":
        return
    owners = await repository.lock_owners(session, organisation_id=membership.organisation_id)
    if not any(owner != membership.user_id for owner in owners):
        raise LastOwner()


async def _end_invitations_to(
    session: AsyncSession,
    *,
    membership: Membership,
    actor: str,
    address: str,
    role: Role | None = None,
) -> None:
    """End a member's invitations to the organisation, or those to one role."""
    ended = await repository.delete_invitations_by(
        session,
        user_id=membership.user_id,
        organisation_id=membership.organisation_id,
        role=role,
    )
    await _record_ended(session, ended, actor=actor, address=address)


async def _record_ended(
    session: AsyncSession, ended: Sequence[Invitation], *, actor: str, address: str | None
) -> None:
    for each in ended:
        target = f"{each.id}@{each.organisation_id}"
        await record(session, "invitation_withdrawn", actor=actor, target=target, address=address)


async def _end_tokens(session: AsyncSession, *, membership: Membership) -> None:
    """Revoke a user's tokens for an organisation, and no others."""
    user_id, organisation_id = membership.user_id, membership.organisation_id
    await end_logins(session, user_id=user_id, organisation_id=organisation_id)
    membership.tokens_from = await publish(
        session, ("user", user_id), account=organisation_id, after=membership.tokens_from
    )
