"""All SQL about authorization codes, device codes and consents."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.openid.models import AuthorizationCode, Consent, DeviceCode
from services.auth.upserts import upsert


async def add_code(session: AsyncSession, code: AuthorizationCode) -> None:
    session.add(code)
    await session.flush()


async def find_code_owner(session: AsyncSession, *, code_sha256: str) -> str | None:
    """Return the id of the person whom a code is about."""
    stored = select(AuthorizationCode.user_id).where(AuthorizationCode.code_sha256 == code_sha256)
    return await session.scalar(stored)


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


async def list_consents(session: AsyncSession, *, user_id: str) -> Sequence[Consent]:
    """Return a person's consents, oldest first."""
    own = select(Consent).where(Consent.user_id == user_id)
    return (await session.scalars(own.order_by(Consent.created_at, Consent.client_id))).all()


async def store_consent(
    session: AsyncSession, *, user_id: str, client_id: str, scope: str, now: datetime
) -> None:
    key = {"user_id": user_id, "client_id": client_id}
    given = {"scope": scope, "created_at": now}
    await upsert(session, Consent, key | given, list(given.items()))


async def add_device(session: AsyncSession, device: DeviceCode) -> bool:
    """Insert a device; return False, writing nothing, if its user code is taken."""
    try:
        async with session.begin_nested():
            session.add(device)
    except IntegrityError:
        return False
    return True


async def find_device_owner(session: AsyncSession, *, device_code_sha256: str) -> str | None:
    """Return the id of the person who approved a device."""
    stored = select(DeviceCode.user_id).where(DeviceCode.device_code_sha256 == device_code_sha256)
    return await session.scalar(stored)


async def lock_device(session: AsyncSession, *, device_code_sha256: str) -> DeviceCode | None:
    """Return a device, locked until the transaction ends."""
    stored = select(DeviceCode).where(DeviceCode.device_code_sha256 == device_code_sha256)
    return await session.scalar(stored.with_for_update())


async def lock_waiting_device(
    session: AsyncSession, *, user_code_sha256: str, now: datetime
) -> DeviceCode | None:
    """Return a device that still waits for a decision, locked until the transaction ends."""
    waiting = select(DeviceCode).where(
        DeviceCode.user_code_sha256 == user_code_sha256,
        DeviceCode.user_id.is_(None),
        DeviceCode.denied.is_(False),
        DeviceCode.expires_at > now,
    )
    return await session.scalar(waiting.with_for_update())


async def delete_device(session: AsyncSession, *, device_code_sha256: str) -> None:
    await session.execute(
        delete(DeviceCode).where(DeviceCode.device_code_sha256 == device_code_sha256)
    )


async def delete_devices(session: AsyncSession, *, expired_before: datetime) -> None:
    await session.execute(delete(DeviceCode).where(DeviceCode.expires_at <= expired_before))
