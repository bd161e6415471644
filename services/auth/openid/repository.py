"""All SQL about authorization codes and consents."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import AuthorizationCode, Consent
from services.auth.upserts import upsert


async def add_code(session: AsyncSession, code: AuthorizationCode) -> None:
    session.add(code)
    await session.flush()


async def lock_code(session: AsyncSession, *, code_sha256: str) -> AuthorizationCode | None:
    """Return a code, used or not, locked until the transaction ends."""
    stored = select(AuthorizationCode).where(AuthorizationCode.code_sha256 == code_sha256)
    return await session.scalar(stored.with_for_update())


async def delete_codes(session: AsyncSession, *, expired_before: datetime) -> None:
    await session.execute(
        delete(AuthorizationCode).where(AuthorizationCode.expires_at <= expired_before)
    )


async def find_consent(session: AsyncSession, *, user_id: str, client_id: str) -> Consent | None:
    return await session.get(Consent, (user_id, client_id))


async def store_consent(
    session: AsyncSession, *, user_id: str, client_id: str, scope: str, now: datetime
) -> None:
    key = {"user_id": user_id, "client_id": client_id}
    given = {"scope": scope, "created_at": now}
    await upsert(session, Consent, key | given, list(given.items()))
