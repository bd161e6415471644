"""Queue mail in the transaction that causes it; `delivery` sends it after the commit."""

import uuid
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.failures import MAX_ADDRESS_CHARS, clip
from services.auth.mail import repository
from services.auth.models import QueuedMail


class Kind(StrEnum):
    """What a message is about."""

    REGISTRATION = "registration"
    """Completes a registration or, if the address is taken, says so to its owner."""
    VERIFICATION = "verification"
    INVITATION = "invitation"
    JOIN = "join"
    """Invites to an organisation."""
    ADDED = "added"
    """Says that a user was added to an organisation."""
    RESET = "reset"
    """Resets a password; nothing is sent to an address without a user."""
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    EMAIL_CHANGE_REQUESTED = "email_change_requested"
    """Says to the current address that another one is being verified."""
    EMAIL_CHANGED = "email_changed"
    TOTP_CHANGED = "totp_changed"


async def queue_mail(
    session: AsyncSession,
    kind: Kind,
    *,
    email: str,
    user_id: str | None = None,
    password_hash: str | None = None,
    organisation_id: str | None = None,
    address: str | None = None,
) -> None:
    """Queue a message to a normalised address.

    The request does the same whether or not the address has a user, so its time shows nothing.

    Args:
        user_id: whom it is about; for an invitation to register, who invites.
        address: the IP address of the request, which the message is to mention.
    """
    now = datetime.now(UTC)
    mail = QueuedMail(
        id=str(uuid.uuid4()),
        user_id=user_id,
        kind=kind,
        email=email,
        password_hash=password_hash,
        organisation_id=organisation_id,
        address=clip(address, max_chars=MAX_ADDRESS_CHARS),
        created_at=now,
        attempts=0,
        next_attempt_at=now,
    )
    await repository.add_mail(session, mail)


async def cancel_mail(session: AsyncSession, *, user_id: str, email: str) -> None:
    """Drop the queued messages that would verify an address of a user or reset the password.

    Args:
        email: the user's; a message that resets a password names no user.
    """
    await repository.delete_mail_of(session, user_id=user_id, kind=Kind.VERIFICATION)
    await repository.delete_mail_to(session, email=email, kind=Kind.RESET)


async def cancel_invitations(session: AsyncSession, *, user_id: str) -> None:
    """Drop the queued messages by which a user invites others to register."""
    await repository.delete_mail_of(session, user_id=user_id, kind=Kind.INVITATION)
