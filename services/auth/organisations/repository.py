"""All SQL about organisations, their members and their invitations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Invitation, Membership, Organisation, User
from services.auth.upserts import upsert

# -- organisations -------------------------------------------------------------------------------


async def add_organisation(session: AsyncSession, organisation: Organisation) -> None:
    session.add(organisation)
    await session.flush()


async def find_organisation(session: AsyncSession, *, organisation_id: str) -> Organisation | None:
    if not organisation_id.isascii():  # MySQL cannot compare it with an ASCII column
        return None
    return await session.get(Organisation, organisation_id)


async def list_organisations(
    session: AsyncSession, *, user_id: str
) -> Sequence[tuple[Organisation, Membership]]:
    """Return a user's organisations and memberships, oldest organisation first."""
    own = (
        select(Organisation, Membership)
        .join(Membership, Membership.organisation_id == Organisation.id)
        .where(Membership.user_id == user_id)
        .order_by(Organisation.created_at, Organisation.id)
    )
    return [(organisation, membership) for organisation, membership in await session.execute(own)]


# -- members -------------------------------------------------------------------------------------


async def add_membership(session: AsyncSession, membership: Membership) -> None:
    session.add(membership)
    await session.flush()


async def find_membership(
    session: AsyncSession, *, organisation_id: str, user_id: str
) -> Membership | None:
    """Return a membership as stored now."""
    if not (organisation_id + user_id).isascii():  # MySQL cannot compare it with an ASCII column
        return None
    return await session.get(Membership, (organisation_id, user_id), populate_existing=True)


async def list_members(
    session: AsyncSession, *, organisation_id: str
) -> Sequence[tuple[Membership, User]]:
    """Return the members of an organisation, oldest membership first."""
    members = (
        select(Membership, User)
        .join(User, User.id == Membership.user_id)
        .where(Membership.organisation_id == organisation_id)
        .order_by(Membership.created_at, Membership.user_id)
    )
    return [(membership, user) for membership, user in await session.execute(members)]


async def count_members(session: AsyncSession, *, organisation_id: str) -> int:
    """Return the number of members and invitations."""
    members, invited = (
        select(func.count()).select_from(table).where(table.organisation_id == organisation_id)
        for table in (Membership, Invitation)
    )
    return (await session.scalar(members) or 0) + (await session.scalar(invited) or 0)


async def lock_owners(session: AsyncSession, *, organisation_id: str) -> Sequence[str]:
    """Lock an organisation's owners until the transaction ends; return the enabled ones' ids."""
    owners = (
        select(Membership.user_id)
        .where(Membership.organisation_id == organisation_id, Membership.role == "owner")
        .order_by(Membership.user_id)
    )
    ids = (await session.scalars(owners.with_for_update())).all()
    enabled = select(User.id).where(User.id.in_(ids), User.disabled_at.is_(None))
    return (await session.scalars(enabled)).all()


async def delete_membership(session: AsyncSession, membership: Membership) -> None:
    await session.delete(membership)
    await session.flush()


# -- invitations ---------------------------------------------------------------------------------


async def store_invitation(session: AsyncSession, row: dict[str, Any]) -> Invitation:
    """Insert an invitation, or renew that of the same address; return what is stored."""
    renewed = [(name, row[name]) for name in ("role", "invited_by", "created_at", "expires_at")]
    await upsert(session, Invitation, row, renewed)
    stored = select(Invitation).where(
        Invitation.organisation_id == row["organisation_id"], Invitation.email == row["email"]
    )
    fresh = stored.execution_options(populate_existing=True)
    return (await session.scalars(fresh)).one()


async def find_invitation(
    session: AsyncSession, *, organisation_id: str, email: str, now: datetime
) -> Invitation | None:
    """Return an invitation that has not expired."""
    valid = select(Invitation).where(
        Invitation.organisation_id == organisation_id,
        Invitation.email == email,
        Invitation.expires_at > now,
    )
    return await session.scalar(valid)


async def list_invitations(
    session: AsyncSession, *, organisation_id: str, now: datetime
) -> Sequence[Invitation]:
    """Return the invitations that have not expired, oldest first."""
    valid = select(Invitation).where(
        Invitation.organisation_id == organisation_id, Invitation.expires_at > now
    )
    return (await session.scalars(valid.order_by(Invitation.created_at, Invitation.id))).all()


async def delete_invitation(
    session: AsyncSession, *, organisation_id: str, invitation_id: str
) -> bool:
    """Delete an invitation; return False if the organisation has no such invitation."""
    if not invitation_id.isascii():
        return False
    own = delete(Invitation).where(
        Invitation.id == invitation_id, Invitation.organisation_id == organisation_id
    )
    return cast(CursorResult[Any], await session.execute(own)).rowcount == 1


async def delete_invitation_to(session: AsyncSession, *, organisation_id: str, email: str) -> None:
    """Delete the invitation of an address, if there is one."""
    await session.execute(
        delete(Invitation).where(
            Invitation.organisation_id == organisation_id, Invitation.email == email
        )
    )


async def delete_invitations_by(
    session: AsyncSession,
    *,
    user_id: str,
    organisation_id: str | None = None,
    role: str | None = None,
) -> Sequence[Invitation]:
    """Delete and return what a user, locked by the caller, has invited.

    Args:
        organisation_id: limits it to one organisation.
        role: limits it to one role.
    """
    own = [Invitation.invited_by == user_id]
    if organisation_id is not None:
        own.append(Invitation.organisation_id == organisation_id)
    if role is not None:
        own.append(Invitation.role == role)
    found = (await session.scalars(select(Invitation).where(*own).order_by(Invitation.id))).all()
    if found:
        await session.execute(
            delete(Invitation)
            .where(Invitation.id.in_([each.id for each in found]), *own)
            .execution_options(synchronize_session=False)
        )
    return found


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(Invitation).where(Invitation.expires_at <= now))
