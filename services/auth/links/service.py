"""One-time links: a random token that was sent to an e-mail address and can be used once."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.links import repository
from services.auth.models import OneTimeLink
from services.common.errors import ServiceError

REGISTER = "register"
VERIFY_EMAIL = "verify_email"
RESET_PASSWORD = "reset_password"  # noqa: S105
INVITE = "invite"
JOIN = "join"
"""Joins an organisation; someone without a user registers with it, too."""

LIFETIMES = {
    REGISTER: timedelta(hours=24),
    VERIFY_EMAIL: timedelta(hours=24),
    RESET_PASSWORD: timedelta(hours=1),
    INVITE: timedelta(days=7),
    JOIN: timedelta(days=7),
}
"""How long a link can be used, by purpose."""


class LinkInvalid(ServiceError):
    """The link is unknown, has expired, or was used before."""

    status = 400
    code = "invalid_link"
    detail = "The link is invalid, has expired, or was used before; request a new one."


async def create_link(
    session: AsyncSession,
    *,
    purpose: str,
    email: str,
    user_id: str | None = None,
    password_hash: str | None = None,
    organisation_id: str | None = None,
) -> str:
    """Create a link for the owner of an e-mail address; return its token, which is not stored."""
    token = secrets.token_urlsafe(32)
    link = OneTimeLink(
        token_sha256=_digest(token),
        user_id=user_id,
        purpose=purpose,
        email=email,
        password_hash=password_hash,
        organisation_id=organisation_id,
        expires_at=datetime.now(UTC) + LIFETIMES[purpose],
    )
    await repository.add_link(session, link)
    return token


async def find_link(session: AsyncSession, *, token: str, purposes: tuple[str, ...]) -> OneTimeLink:
    """Return a link that can be used for one of these purposes, without using it.

    Raises:
        LinkInvalid: there is no such link.
    """
    link = await repository.find_link(
        session, token_sha256=_digest(token), purposes=purposes, now=datetime.now(UTC)
    )
    if link is None:
        raise LinkInvalid()
    return link


async def use_link(session: AsyncSession, *, token: str, purposes: tuple[str, ...]) -> OneTimeLink:
    """Use up a link in the transaction of what it permits, and return it.

    Raises:
        LinkInvalid: there is no such link, or another request has just used it.
    """
    link = await find_link(session, token=token, purposes=purposes)
    if not await repository.delete_link(session, token_sha256=link.token_sha256):
        raise LinkInvalid()
    return link


async def cancel_links(session: AsyncSession, *, user_id: str, purposes: tuple[str, ...]) -> None:
    """Make all links of a user for these purposes unusable."""
    await repository.delete_links_of(session, user_id=user_id, purposes=purposes)


async def cancel_links_to(session: AsyncSession, *, email: str, organisation_id: str) -> None:
    """Make all links that invite an address to an organisation unusable."""
    await repository.delete_links_to(session, email=email, organisation_id=organisation_id)


async def delete_expired_links(session: AsyncSession, *, now: datetime) -> None:
    """Delete links that can no longer be used."""
    await repository.delete_expired(session, now=now)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
