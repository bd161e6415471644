"""End the log-ins of a user, when the password changes or the user is disabled."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.tokens import repository


async def end_logins(session: AsyncSession, *, user_id: str) -> None:
    """Revoke all refresh tokens of a user; access tokens stay valid until they expire."""
    await repository.delete_families(session, user_id=user_id)
