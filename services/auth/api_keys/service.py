"""Manage the API keys of an account."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys import repository
from services.auth.api_keys.credentials import key_digest
from services.auth.audit.service import record
from services.auth.callers import find_creator, refuse_apps
from services.auth.models import ApiKey, User
from services.auth.revocations.service import publish
from services.common.errors import BodyInvalid, NotFound, ServiceError, Unauthenticated
from services.common.identity.api_keys import KEY_SCOPES, PREFIX_CHARS, Mode, new_api_key
from services.common.identity.caller import Caller

MAX_KEYS = 100
"""Maximum number of API keys of an account."""


class TooManyKeys(ServiceError):
    """The account already has the maximum number of API keys."""

    status = 409
    code = "too_many_api_keys"
    detail = f"An account can have at most {MAX_KEYS} API keys; delete one first."


class KeyExpired(ServiceError):
    """The key has expired, so that a new one would be a different decision."""

    status = 409
    code = "api_key_expired"
    detail = "This API key has expired; create a new one."


async def create_key(
    session: AsyncSession,
    *,
    caller: Caller,
    name: str,
    scope: str | None,
    models: Sequence[str] | None,
    allowed_ips: Sequence[str] | None,
    expires_at: datetime | None,
    mode: Mode,
    address: str,
) -> tuple[ApiKey, str]:
    """Create an API key of the caller's account; return it and its text, which is not stored.

    Args:
        scope: some of `KEY_SCOPES`; default all.
        models: the only models that it may use; default all.
        allowed_ips: the only addresses and networks that may use it; default all.
        address: where the request came from.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
        BodyInvalid: a key cannot have that scope, or `expires_at` is in the past.
        TooManyKeys: the account already has `MAX_KEYS` keys.
    """
    user = await _find_manager(session, caller=caller)
    now = datetime.now(UTC)
    requested = (scope or "").split() or list(KEY_SCOPES)
    if not set(requested) <= set(KEY_SCOPES):
        allowed = " and ".join(f"'{each}'" for each in KEY_SCOPES)
        raise BodyInvalid([{"loc": ["body", "scope"], "msg": f"An API key can have {allowed}."}])
    if expires_at is not None and expires_at <= now:
        raise BodyInvalid([{"loc": ["body", "expires_at"], "msg": "Must not be in the past."}])
    if len(await repository.list_keys(session, account_id=caller.account)) >= MAX_KEYS:
        raise TooManyKeys()
    key = ApiKey(
        account_id=caller.account,
        created_by=user.id if user else None,
        name=name,
        mode=mode,
        scope=" ".join(each for each in KEY_SCOPES if each in requested),
        model_names=_joined(models),
        addresses=_joined(allowed_ips),
        expires_at=expires_at,
    )
    text = await _store(session, key, now=now)
    await record(
        session, "api_key_created", actor=_actor(caller, user), target=key.id, address=address
    )
    return key, text


async def list_keys(session: AsyncSession, *, caller: Caller) -> Sequence[ApiKey]:
    """Return the API keys of the caller's account, oldest first.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
    """
    await _find_manager(session, caller=caller)
    return await repository.list_keys(session, account_id=caller.account)


class ManagedKey(NamedTuple):
    """A locked key of the caller's account, and the user who manages it; see `_find_manager`."""

    key: ApiKey
    user: User | None


async def lock_managed(session: AsyncSession, *, caller: Caller, key_id: str) -> ManagedKey:
    """Lock a key that is to be replaced or deleted.

    Raises:
        Unauthenticated: the token is no longer active.
        LoginNeeded: it was issued to an app that is not part of Tollgate.
        NotFound: the key does not exist or belongs to another account.
    """
    user = await _find_manager(session, caller=caller)
    key = await repository.lock_key(session, account_id=caller.account, key_id=key_id)
    if key is None:
        raise NotFound()
    return ManagedKey(key, user)


async def rotate_key(
    session: AsyncSession, managed: ManagedKey, *, caller: Caller, overlap: timedelta, address: str
) -> tuple[ApiKey, str]:
    """Replace a key with a new one that may do the same; return it and its text.

    Args:
        overlap: how long the old key still works.
        address: where the request came from.

    Raises:
        KeyExpired: the key has expired.
    """
    old, user = managed
    now = datetime.now(UTC)
    if old.has_expired(now):
        raise KeyExpired()
    new = ApiKey(
        account_id=old.account_id,
        created_by=user.id if user else None,
        name=old.name,
        mode=old.mode,
        scope=old.scope,
        model_names=old.model_names,
        addresses=old.addresses,
        expires_at=old.expires_at,
    )
    if overlap:
        ends_at = now + overlap
        old.expires_at = min(old.expires_at or ends_at, ends_at)
    else:
        await repository.delete_key(session, old)
    text = await _store(session, new, now=now)
    await record(
        session, "api_key_rotated", actor=_actor(caller, user), target=old.id, address=address
    )
    await record(
        session, "api_key_created", actor=_actor(caller, user), target=new.id, address=address
    )
    await publish(session, ("api_key", old.id))
    return new, text


async def delete_key(
    session: AsyncSession, managed: ManagedKey, *, caller: Caller, address: str
) -> None:
    """Delete a key."""
    key, user = managed
    await repository.delete_key(session, key)
    await record(
        session, "api_key_deleted", actor=_actor(caller, user), target=key.id, address=address
    )
    await publish(session, ("api_key", key.id))


async def _find_manager(session: AsyncSession, *, caller: Caller) -> User | None:
    """Return the user who manages the account's keys; None for an organisation's client.

    Other people's apps manage none: a key lasts longer than the trust in an app.
    """
    user = await find_creator(session, caller=caller)
    await refuse_apps(session, caller=caller)
    return user


async def _store(session: AsyncSession, key: ApiKey, *, now: datetime) -> str:
    """Store a new key under a new id; return its text.

    Raises:
        Unauthenticated: its creator was deleted meanwhile.
    """
    text = new_api_key("test" if key.mode == "test" else "live")
    key.id, key.created_at = str(uuid.uuid4()), now
    key.prefix, key.key_sha256 = text[:PREFIX_CHARS], key_digest(text)
    if not await repository.add_key(session, key):
        raise Unauthenticated()
    return text


def _actor(caller: Caller, user: User | None) -> str:
    return user.id if user else caller.client_id


def _joined(words: Sequence[str] | None) -> str | None:
    return None if words is None else " ".join(dict.fromkeys(words))
