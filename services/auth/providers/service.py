"""Which user a person at another provider signs in as.

A person is recognized by the provider's `sub`, never by an e-mail address alone. The first time,
the address decides, and only if it is verified on both sides; otherwise the person signs in with
the password once, which links the two.
"""

import enum
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import User
from services.auth.passwords import PasswordHasher
from services.auth.providers import repository
from services.auth.providers.client import Person
from services.auth.providers.models import ProviderIdentity
from services.auth.providers.states import Link
from services.auth.sessions.service import await_code, start_session
from services.auth.sessions.sign_in import Entered
from services.auth.users.emails import check_email
from services.auth.users.profile import verified_now
from services.auth.users.service import (
    EmailTaken,
    find_user,
    find_user_by_email,
    new_user,
    store_user,
)
from services.common.errors import BodyInvalid


class Outcome(enum.Enum):
    """What a sign-in at a provider leads to."""

    SIGN_IN = "sign in"
    PASSWORD_FIRST = "password first"  # noqa: S105
    NO_VERIFIED_EMAIL = "no verified e-mail address"
    BY_INVITATION = "by invitation"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Found:
    """The user whom a person signs in as, if there is one."""

    outcome: Outcome
    user: User | None = None


async def hash_no_password(hasher: PasswordHasher) -> str:
    """Return the hash of a password that nobody knows, for a user who signs in elsewhere."""
    with hasher.reserve():
        return await hasher.hash(secrets.token_urlsafe(32))


async def find_or_create(
    session: AsyncSession,
    *,
    person: Person,
    registration: str,
    password_hash: str,
    address: str,
) -> Found:
    """Return the user whom a person signs in as; link or create one if the rules allow it.

    Args:
        registration: who may register, as in the settings.
        password_hash: of a new user.
    """
    digest = _digest(person.issuer, person.subject)
    identity = await repository.find_identity(session, identity_sha256=digest)
    if identity is not None:
        user = await find_user(session, user_id=identity.user_id)
        return _unless_disabled(user)
    if person.email is None:
        return Found(Outcome.NO_VERIFIED_EMAIL)
    user = await find_user_by_email(session, email=person.email)
    if user is None:
        if registration == "invite":
            return Found(Outcome.BY_INVITATION)
        user = await _create(session, person=person, password_hash=password_hash, address=address)
        if user is None:
            return Found(Outcome.NO_VERIFIED_EMAIL)
    elif user.email_verified_at is None:
        return Found(Outcome.PASSWORD_FIRST)
    if user.disabled_at is not None:
        return Found(Outcome.DISABLED)
    await link(session, user=user, issuer=person.issuer, subject=person.subject, address=address)
    return Found(Outcome.SIGN_IN, user)


async def link(
    session: AsyncSession, *, user: User, issuer: str, subject: str, address: str
) -> None:
    """Let a person at a provider sign in as this user from now on; repeating changes nothing."""
    identity = ProviderIdentity(
        identity_sha256=_digest(issuer, subject),
        user_id=user.id,
        issuer=issuer,
        subject=subject,
        created_at=datetime.now(UTC),
    )
    if await repository.add_identity(session, identity):
        await record(session, "provider_linked", actor=user.id, target=user.id, address=address)


async def list_identities_of(session: AsyncSession, *, user_id: str) -> Sequence[ProviderIdentity]:
    """Return the people at providers who sign in as a user, oldest first."""
    return await repository.list_identities(session, user_id=user_id)


async def start_or_ask(
    session: AsyncSession, *, user: User, lifetime_s: int, replaced: str | None, address: str
) -> Entered:
    """Sign in the user whom a provider vouches for, or remember that a code must follow.

    Args:
        replaced: the secret of the browser's cookie so far.
    """
    if user.totp_confirmed_at is not None:
        secret = await await_code(session, user=user, replaced=replaced)
        return Entered(secret, needs_code=True)
    secret = await start_session(session, user=user, lifetime_s=lifetime_s, replaced=replaced)
    await record(session, "login_succeeded", actor=user.id, target=user.id, address=address)
    return Entered(secret)


async def link_after_password(
    session: AsyncSession, *, user: User, waiting: Link, address: str
) -> None:
    """Link the person at a provider who has just signed in with the password of a user.

    Changes nothing if the provider's e-mail address is not the user's.
    """
    namesake = await find_user_by_email(session, email=waiting.email)
    if namesake is not None and namesake.id == user.id:
        verified_now(namesake)
        await link(
            session,
            user=namesake,
            issuer=waiting.issuer,
            subject=waiting.subject,
            address=address,
        )


async def _create(
    session: AsyncSession, *, person: Person, password_hash: str, address: str
) -> User | None:
    """Create the user of a person with a verified e-mail address; None if it is not valid here."""
    try:
        user = new_user(check_email(person.email or ""), password_hash, admin=False)
        user.name = person.name
        verified_now(user)
        return await store_user(session, user=user, email=user.email, address=address)
    except (BodyInvalid, EmailTaken):
        return None


def _unless_disabled(user: User | None) -> Found:
    if user is None or user.disabled_at is not None:
        return Found(Outcome.DISABLED)
    return Found(Outcome.SIGN_IN, user)


def _digest(issuer: str, subject: str) -> str:
    return hashlib.sha256(f"{issuer}\0{subject}".encode("utf-8", "surrogatepass")).hexdigest()
