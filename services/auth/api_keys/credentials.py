"""Check an API key, for the services that accept it."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys import repository
from services.auth.models import ApiKey
from services.auth.organisations.memberships import find_organisation
from services.auth.users.service import find_user
from services.common.identity.api_keys import is_api_key

USE_GRANULARITY = timedelta(minutes=1)
"""How exactly the last use is stored, so that it is not written for each of many services."""


def key_digest(key: str) -> str:
    """Return the digest to store. A key has 190 random bits, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


async def find_active_key(session: AsyncSession, *, key: str) -> ApiKey | None:
    """Return the key with this text; None if it is unknown or expired, or its account disabled."""
    if not is_api_key(key.encode()):
        return None
    found = await repository.find_key_by_digest(session, key_sha256=key_digest(key))
    if found is None or found.has_expired(datetime.now(UTC)):
        return None
    user = await find_user(session, user_id=found.account_id)
    if user is None:
        organisation = await find_organisation(session, organisation_id=found.account_id)
        return None if organisation is None else found
    return found if user.disabled_at is None else None


async def record_use(session: AsyncSession, *, key: ApiKey) -> None:
    """Store that a key is being used, to the minute."""
    now = datetime.now(UTC)
    await repository.record_use(session, key_id=key.id, now=now, unless_since=now - USE_GRANULARITY)


async def list_keys_of(session: AsyncSession, *, account_id: str) -> Sequence[ApiKey]:
    """Return an account's keys, oldest first."""
    return await repository.list_keys(session, account_id=account_id)


async def delete_keys_of(session: AsyncSession, *, account_id: str) -> None:
    """Delete all keys of an account."""
    await repository.delete_keys(session, account_id=account_id)


async def delete_expired_keys(session: AsyncSession, *, before: datetime) -> None:
    """Delete the keys that expired before a point in time; until then their owners see them."""
    await repository.delete_expired(session, before=before)
