"""What users do with their own data: read and change it, and leave."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys.credentials import delete_keys_of
from services.auth.audit.failures import FailureLog
from services.auth.audit.service import record
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import User
from services.auth.notes.service import delete_notes_on
from services.auth.organisations.memberships import leave_all
from services.auth.passwords import PasswordHasher, check_new_password
from services.auth.tokens.attempts import login_keys
from services.auth.tokens.guesses import (
    GuessLimits,
    Standing,
    TooManyGuesses,
    check_standing,
    count_failure,
    count_mail,
)
from services.auth.users import repository
from services.auth.users.emails import check_email
from services.auth.users.service import (
    EmailTaken,
    end_sessions,
    find_user_by_email,
    is_enabled,
    keep_an_administrator,
    lock_unchanged,
    lock_user,
    revoke_all,
)
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import BodyInvalid, ServiceError, Unauthenticated


class WrongPassword(ServiceError):
    """The current password is wrong."""

    status = 403
    code = "wrong_password"
    detail = "The current password is wrong."


async def update_profile(
    session: AsyncSession,
    *,
    user: User,
    changes: dict[str, Any],
    verify_first: bool,
    address: str,
) -> None:
    """Change a user's name or e-mail address.

    Args:
        changes: `name` and `email`, each only if it is to change.
        verify_first: keep the old address until the new one is verified.

    Raises:
        BodyInvalid: the e-mail address is malformed.
        EmailTaken: another user has it; with `verify_first`, only using the link shows it.
        Unauthenticated: the user was meanwhile deleted or disabled.
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    # The user's row comes before the counters of messages, in every transaction that locks both.
    stored = await lock_user(session, user_id=user.id)
    if not is_enabled(stored):
        raise Unauthenticated()
    if "name" in changes:
        stored.name = changes["name"]
    email = check_email(changes["email"]) if changes.get("email") else stored.email
    if email != stored.email:
        await count_mail(session, email=email, address=address)
        if verify_first:
            await _announce_change(session, user=stored, address=address)
        else:
            await change_email(session, user=stored, email=email, address=address)
        await _mail_verification(session, user=stored, email=email, address=address)
    elif "email" in changes and stored.email_verified_at is None:
        await count_mail(session, email=email, address=address)
        await _mail_verification(session, user=stored, email=email, address=address)
    await record(session, "user_updated", actor=stored.id, target=stored.id, address=address)


async def _mail_verification(
    session: AsyncSession, *, user: User, email: str, address: str
) -> None:
    await queue_mail(session, Kind.VERIFICATION, email=email, user_id=user.id, address=address)


async def _announce_change(session: AsyncSession, *, user: User, address: str) -> None:
    """Notify a user at the current e-mail address that another one is being verified."""
    with suppress(TooManyGuesses):  # nobody can flood the mailbox of a user with notices
        await count_mail(session, email=user.email, address=address)
        await queue_mail(
            session,
            Kind.EMAIL_CHANGE_REQUESTED,
            email=user.email,
            user_id=user.id,
            address=address,
        )


async def change_email(session: AsyncSession, *, user: User, email: str, address: str) -> None:
    """Give a user another, normalised e-mail address, and notify the old one.

    Raises:
        EmailTaken: another user has it.
    """
    holder = await find_user_by_email(session, email=email)
    if holder is not None and holder.id != user.id:
        raise EmailTaken()
    old = user.email
    if not await repository.set_email(session, user, email=email):
        raise EmailTaken()
    await record(session, "email_changed", actor=user.id, target=user.id, address=address)
    await queue_mail(session, Kind.EMAIL_CHANGED, email=old, user_id=user.id, address=address)


async def delete_user(session: AsyncSession, *, user: User, address: str) -> None:
    """Delete a user with everything that names them; usage and the audit log keep only the id.

    All tokens and API keys of the account are revoked; those of organisations stay. The user is
    locked first, so that no key is created meanwhile.

    Raises:
        Unauthenticated: another request has deleted the user.
        LastAdministrator: no other administrator would be left.
        LastOwner: an organisation would be left without an owner.
    """
    await keep_an_administrator(session, user=user)  # first: others lock administrators in order
    if await repository.lock_user(session, user_id=user.id) is None:
        raise Unauthenticated()
    await leave_all(session, user=user, address=address)
    await record(session, "user_deleted", actor=user.id, target=user.id, address=address)
    await revoke_all(session, user=user)
    await delete_keys_of(session, account_id=user.id)
    await delete_notes_on(session, account_id=user.id)
    await repository.delete_user(session, user_id=user.id)


async def set_password(
    session: AsyncSession, *, user: User, password_hash: str, action: str, address: str
) -> None:
    """Store a new password, end what the old one permitted, and notify the user."""
    user.password_hash = password_hash
    await end_sessions(session, user=user)
    await record(session, action, actor=user.id, target=user.id, address=address)
    await queue_mail(
        session, Kind.PASSWORD_CHANGED, email=user.email, user_id=user.id, address=address
    )


@dataclass(frozen=True, slots=True)
class PasswordChanger:
    """What changing a password needs; `app.py` creates it once.

    Like a sign-in, it verifies passwords between two transactions, not inside one.
    """

    database: Database
    hasher: PasswordHasher
    limits: GuessLimits
    failures: FailureLog

    async def change(self, *, user: User, current: str, new: str, address: str) -> None:
        """Replace a user's password, if the current one is right.

        Wrong ones count like failed sign-ins.

        Raises:
            WrongPassword: `current` is wrong.
            TooManyGuesses: too many wrong ones, even if this one is right.
            BodyInvalid: `new` is too short, too long or too common.
            Unauthenticated: the user was meanwhile deleted or disabled, or got another password.
        """
        _check_field("new", new)
        keys = login_keys(user.email, client=address)
        with self.hasher.reserve():
            async with self.database.snapshot() as session:
                standing = await check_standing(session, keys=keys, limits=self.limits)
            if standing.retry_after_s is not None:
                raise TooManyGuesses(retry_after_s=standing.retry_after_s)
            matches = await self.hasher.verify(current, user.password_hash)
            password_hash = await self.hasher.hash(new) if matches else ""

        async def decide(session: AsyncSession) -> Standing | None:
            stored = await lock_unchanged(session, user=user)
            if stored is None:
                raise Unauthenticated()
            standing = await check_standing(session, keys=keys, limits=self.limits, lock=True)
            if standing.retry_after_s is not None:
                raise TooManyGuesses(retry_after_s=standing.retry_after_s)
            if not matches:
                return await count_failure(
                    session, keys=keys, limits=self.limits, known=standing.known
                )
            await set_password(
                session,
                user=stored,
                password_hash=password_hash,
                action="password_changed",
                address=address,
            )
            return None

        counted = await in_transaction(self.database, decide)
        if counted is None:
            return
        self.failures.note("password_rejected", actor=user.id, target=user.id, address=address)
        if counted.locks:
            self.failures.note("login_locked", target=user.id, address=address)
        raise WrongPassword()


def verified_now(user: User) -> None:
    """Record that the user has shown that the e-mail address is theirs."""
    user.email_verified_at = user.email_verified_at or datetime.now(UTC)


def _check_field(field: str, password: str) -> None:
    try:
        check_new_password(password)
    except BodyInvalid as error:
        [problem] = error.extra["errors"]
        raise BodyInvalid([problem | {"loc": ["body", field]}]) from error
