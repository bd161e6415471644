"""What a link in an e-mail permits: to register, verify an e-mail address or reset a password."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.links.service import (
    INVITE,
    JOIN,
    REGISTER,
    RESET_PASSWORD,
    VERIFY_EMAIL,
    LinkInvalid,
    find_link,
    use_link,
)
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import User
from services.auth.organisations.invitations import join
from services.auth.passwords import PasswordHasher, check_new_password
from services.auth.tokens.guesses import count_mail
from services.auth.users.emails import MAX_EMAIL_CHARS, check_email, normalise_email
from services.auth.users.profile import change_email, set_password, verified_now
from services.auth.users.service import lock_user, new_user, store_user
from services.common.db.database import Database
from services.common.errors import ServiceError, Unauthenticated


class InvitationNeeded(ServiceError):
    """Registration requires an administrator's invitation."""

    status = 403
    code = "invitation_needed"
    detail = "Registration is by invitation only; ask the operator to invite you."


class AdministratorInvitesFirst(InvitationNeeded):
    """An organisation invites someone without a user, whom only an administrator may invite to
    register."""

    detail = (
        "Only an administrator can invite new users. Ask the operator of this service to invite "
        "you; once you have registered, open this link again to join the organisation."
    )


async def request_registration(session: AsyncSession, *, prepared: User, address: str) -> None:
    """Send a link that completes a registration; nothing shows whether the address is taken.

    Raises:
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    await count_mail(session, email=prepared.email, address=address)
    await queue_mail(
        session,
        Kind.REGISTRATION,
        email=prepared.email,
        password_hash=prepared.password_hash,
        address=address,
    )


async def accept_invitation(
    session: AsyncSession, *, prepared: User, email: str, token: str, mode: str, address: str
) -> User:
    """Register the owner of an e-mail address that was invited, perhaps to an organisation.

    Args:
        mode: who may register, as in the settings.

    Raises:
        LinkInvalid: the invitation is unknown, used, expired, or for another e-mail address.
        AdministratorInvitesFirst: it is an organisation's, and the mode is `invite`.
        EmailTaken: a user has this e-mail address.
    """
    link = await use_link(session, token=token, purposes=(INVITE, JOIN))
    if link.email != prepared.email:
        raise LinkInvalid()
    if link.purpose == JOIN and mode == "invite":
        raise AdministratorInvitesFirst()
    verified_now(prepared)
    user = await store_user(session, user=prepared, email=email, address=address)
    if link.purpose == JOIN:
        await join(session, user=user, link=link, address=address)
    return user


async def verify_email(session: AsyncSession, *, token: str, address: str) -> None:
    """Use a link that was sent to verify an e-mail address, or to complete a registration.

    Raises:
        LinkInvalid: the link is unknown, used or expired.
        EmailTaken: another user has meanwhile taken the e-mail address.
    """
    purposes = (VERIFY_EMAIL, REGISTER)
    found = await find_link(session, token=token, purposes=purposes)
    # The user is locked before the link, as by a new password, which cancels the link.
    user_found = await lock_user(session, user_id=found.user_id or "")
    link = await use_link(session, token=token, purposes=purposes)
    if link.purpose == REGISTER:
        user = new_user(link.email, link.password_hash or "", admin=False)
        verified_now(user)
        await store_user(session, user=user, email=link.email, address=address)
        return
    if user_found is None or user_found.disabled_at is not None:
        raise LinkInvalid()
    if user_found.email != link.email:
        await change_email(session, user=user_found, email=link.email, address=address)
        user_found.email_verified_at = None
    verified_now(user_found)
    await record(
        session, "email_verified", actor=user_found.id, target=user_found.id, address=address
    )


async def request_reset(session: AsyncSession, *, email: str, address: str) -> None:
    """Mail a link that resets a password, if the address has a user; nothing here shows whether.

    Raises:
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    await count_mail(session, email=email, address=address)
    normal = normalise_email(email)
    if 0 < len(normal) <= MAX_EMAIL_CHARS:
        await queue_mail(session, Kind.RESET, email=normal, address=address)


async def reset_password(
    database: Database, *, hasher: PasswordHasher, token: str, password: str, address: str
) -> None:
    """Set a new password by a link; ends all sign-ins, and cancels the user's other links.

    Raises:
        BodyInvalid: the password is too short, too long or too common.
        LinkInvalid: the link is unknown, used or expired, or the user is disabled.
    """
    check_new_password(password)
    async with database.snapshot() as session:
        await find_link(session, token=token, purposes=(RESET_PASSWORD,))
    with hasher.reserve():
        password_hash = await hasher.hash(password)
    async with database.transaction() as session:
        found = await find_link(session, token=token, purposes=(RESET_PASSWORD,))
        user = await lock_user(session, user_id=found.user_id or "")
        link = await use_link(session, token=token, purposes=(RESET_PASSWORD,))
        if user is None or user.disabled_at is not None or user.email != link.email:
            raise LinkInvalid()
        verified_now(user)
        await set_password(
            session,
            user=user,
            password_hash=password_hash,
            action="password_reset",
            address=address,
        )


async def invite(session: AsyncSession, *, email: str, admin: User, address: str) -> None:
    """Mail an invitation to register.

    It ends when the administrator is disabled or deleted, or is no administrator any more.

    Raises:
        BodyInvalid: the e-mail address is malformed.
        Unauthenticated: the administrator was meanwhile disabled or deleted, or no longer is one.
    """
    normal = check_email(email)
    inviter = await lock_user(session, user_id=admin.id)
    if inviter is None or inviter.disabled_at is not None or not inviter.is_admin:
        raise Unauthenticated()
    await queue_mail(session, Kind.INVITATION, email=normal, user_id=inviter.id)
    await record(session, "user_invited", actor=admin.id, address=address)
