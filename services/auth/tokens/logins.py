"""End or list the sign-ins of a user."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import RefreshFamily
from services.auth.revocations.service import publish
from services.auth.tokens import repository
from services.common.contracts import RevocationKind


async def end_logins(
    session: AsyncSession, *, user_id: str, organisation_id: str | None = None
) -> None:
    """Revoke all refresh tokens of a user, or those for an organisation; no access tokens."""
    await repository.delete_families(session, user_id=user_id, organisation_id=organisation_id)


async def end_logins_at(session: AsyncSession, *, client_id: str) -> None:
    """Revoke all refresh tokens of a public client; no access tokens."""
    await repository.delete_families_at(session, client_id=client_id)


async def end_login(session: AsyncSession, *, refresh_token: str, address: str) -> None:
    """Revoke all refresh tokens of a sign-in, given one of them; unknown tokens are ignored."""
    family_id, _ = split_refresh_token(refresh_token)
    family = await repository.find_family(session, family_id=family_id)
    if family is not None:
        await end_family(session, family=family)
        user_id = family.user_id
        await record(session, "login_ended", actor=user_id, target=user_id, address=address)


async def end_family(session: AsyncSession, *, family: RefreshFamily) -> None:
    """Revoke all refresh tokens of a sign-in; at a public client, also its access tokens."""
    await repository.delete_family(session, family_id=family.id)
    tokens = await repository.list_family_tokens(
        session, family_id=family.id, now=datetime.now(UTC)
    )
    if tokens:
        last = max(each.expires_at for each in tokens)
        names: list[tuple[RevocationKind, str]] = [("jti", each.token_id) for each in tokens]
        await publish(session, *names, issued_before=last, until=last)


async def find_family(session: AsyncSession, *, family_id: str) -> RefreshFamily | None:
    """Return a sign-in that has not been ended."""
    return await repository.find_family(session, family_id=family_id)


def split_refresh_token(refresh_token: str) -> tuple[str, str]:
    """Return a refresh token's family id and secret; empty for an impossible token."""
    family_id, _, secret = refresh_token.partition(".")
    return (family_id, secret) if refresh_token.isascii() else ("", "")


async def list_logins(session: AsyncSession, *, user_id: str) -> Sequence[RefreshFamily]:
    """Return a user's sign-ins that can still be refreshed, oldest first."""
    return await repository.list_families(session, user_id=user_id)
