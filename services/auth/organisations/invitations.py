"""Invitations to join an organisation. Each is for the owner of one e-mail address."""

import uuid
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.links.service import JOIN, LIFETIMES, LinkInvalid, cancel_links_to, use_link
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import Invitation, Membership, OneTimeLink, Organisation, User
from services.auth.organisations import repository
from services.auth.organisations.memberships import add_member, member_name
from services.auth.roles import Role
from services.auth.tokens.guesses import count_mail
from services.auth.users.profile import verified_now
from services.auth.users.service import find_user_by_email, lock_user
from services.common.errors import ServiceError


class SignInFirst(ServiceError):
    """The invited address has a user who never confirmed it, and who may be someone else."""

    status = 409
    code = "log_in_first"
    detail = (
        "A user with this address exists, but never confirmed it. Sign in and then accept the "
        "invitation, or reset the password first, which confirms the address."
    )


async def invite(
    session: AsyncSession,
    *,
    organisation_id: str,
    email: str,
    role: Role,
    actor: str,
    address: str,
) -> Invitation:
    """Mail an invitation to a normalised address, or renew it with another role.

    Nothing here shows whether the address has a user.

    Args:
        actor: id of the user who invites, locked by the caller.

    Raises:
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    await count_mail(session, email=email, address=address)
    now = datetime.now(UTC)
    row = {
        "id": str(uuid.uuid4()),
        "organisation_id": organisation_id,
        "email": email,
        "role": role,
        "invited_by": actor,
        "created_at": now,
        "expires_at": now + LIFETIMES[JOIN],
    }
    invitation = await repository.store_invitation(session, row)
    await queue_mail(session, Kind.JOIN, email=email, organisation_id=organisation_id)
    target = f"{invitation.id}@{organisation_id}"
    await record(session, "member_invited", actor=actor, target=target, address=address)
    return invitation


async def find_invited(
    session: AsyncSession, *, organisation_id: str | None, email: str
) -> Organisation | None:
    """Return the organisation that an address is invited to; None if the invitation has ended."""
    invitation = await repository.find_invitation(
        session, organisation_id=organisation_id or "", email=email, now=datetime.now(UTC)
    )
    if invitation is None:
        return None
    return await repository.find_organisation(session, organisation_id=invitation.organisation_id)


async def accept(
    session: AsyncSession, *, user: User, token: str, signed_in: bool, address: str
) -> tuple[Organisation, Membership]:
    """Join an organisation by the token in an e-mail that the user's address received.

    Args:
        signed_in: whether the user has signed in; otherwise only the token shows who asks.

    Raises:
        LinkInvalid: the invitation is unknown, used, withdrawn, expired, or for another address, or
            the user is disabled.
        SignInFirst: nobody has signed in or confirmed the address.
    """
    stored = await lock_user(session, user_id=user.id)
    if stored is None or stored.disabled_at is not None:
        raise LinkInvalid()
    link = await use_link(session, token=token, purposes=(JOIN,))
    owner = await find_user_by_email(session, email=link.email)
    if owner is None or owner.id != user.id:
        raise LinkInvalid()
    if not signed_in and stored.email_verified_at is None:
        raise SignInFirst()
    return await join(session, user=user, link=link, address=address)


async def join(
    session: AsyncSession, *, user: User, link: OneTimeLink, address: str
) -> tuple[Organisation, Membership]:
    """Make the owner of an invited address, whom the caller has locked, a member.

    Someone who is a member already keeps their role.

    Raises:
        LinkInvalid: the invitation was withdrawn or has expired.
    """
    organisation_id = link.organisation_id or ""
    invitation = await repository.find_invitation(
        session, organisation_id=organisation_id, email=link.email, now=datetime.now(UTC)
    )
    organisation = await repository.find_organisation(session, organisation_id=organisation_id)
    if invitation is None or organisation is None:
        raise LinkInvalid()
    role = invitation.role
    if not await withdraw(session, organisation_id=organisation_id, invitation_id=invitation.id):
        raise LinkInvalid()
    await cancel_links_to(session, email=link.email, organisation_id=organisation_id)
    verified_now(user)
    membership = await repository.find_membership(
        session, organisation_id=organisation_id, user_id=user.id
    )
    if membership is None:
        membership = await add_member(
            session, organisation_id=organisation_id, user=user, role=role
        )
        target = member_name(membership)
        await record(session, "member_joined", actor=user.id, target=target, address=address)
    return organisation, membership


async def withdraw(session: AsyncSession, *, organisation_id: str, invitation_id: str) -> bool:
    """End an invitation; return False if the organisation has no such invitation."""
    return await repository.delete_invitation(
        session, organisation_id=organisation_id, invitation_id=invitation_id
    )


async def delete_expired_invitations(session: AsyncSession, *, now: datetime) -> None:
    """Delete the invitations that can no longer be accepted."""
    await repository.delete_expired(session, now=now)
