"""All SQL about sign-ins: their failures, their addresses and their refresh families."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    CursorResult,
    Table,
    bindparam,
    case,
    delete,
    insert,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.auth.models import FamilyToken, KnownAddress, LoginFailures, RefreshFamily, User
from services.auth.tokens.attempts import Failures, LoginKeys
from services.auth.upserts import upsert

# -- a sign-in -----------------------------------------------------------------------------------


class FoundUser(NamedTuple):
    """A user that a typed address may refer to; see `users.shapes.Namesake`."""

    id: str
    email: str
    password_hash: str
    disabled_at: datetime | None


class LockedUser(NamedTuple):
    """A user who signs in, locked; see `users.shapes.LoginUser`."""

    id: str
    password_hash: str
    is_admin: bool
    disabled_at: datetime | None
    tokens_from: datetime | None
    totp_secret: str | None
    totp_confirmed_at: datetime | None


# Statements of a sign-in. They are built once, because building one takes longer than sending it.
# They select few columns, because the driver spends most of its time on the columns' descriptions,
# and from tables, because a session takes longer to read the models' attributes.
_USERS = cast(Table, User.__table__).c
_COUNTS = cast(Table, LoginFailures.__table__).c
_KNOWN = cast(Table, KnownAddress.__table__).c
_OF_KEYS = _COUNTS.email_sha256.in_([bindparam(name) for name in LoginKeys._fields])
_FAILURES = (
    select(_COUNTS.email_sha256, _COUNTS.failures, _COUNTS.window_ends_at)
    .where(_OF_KEYS)
    .order_by(_COUNTS.email_sha256)
)
_LOCKED_FAILURES = _FAILURES.with_for_update()
_OF_ADDRESS = (_KNOWN.pair_sha256 == bindparam("pair")) & (
    _KNOWN.last_login_at >= bindparam("since")
)
_LAST_LOGIN = select(_KNOWN.last_login_at).where(_OF_ADDRESS)
_ADD_FAMILY = insert(cast(Table, RefreshFamily.__table__))
_LOGIN_PARTS: list[Any] = [
    select(_USERS.id, _USERS.email, _USERS.password_hash, _USERS.disabled_at, null()).where(
        or_(_USERS.email == bindparam("email"), _USERS.folded_email == bindparam("folded"))
    ),
    select(_COUNTS.email_sha256, null(), null(), _COUNTS.window_ends_at, _COUNTS.failures).where(
        _OF_KEYS
    ),
    select(_KNOWN.pair_sha256, null(), null(), _KNOWN.last_login_at, null()).where(_OF_ADDRESS),
]
_LOGIN = union_all(*_LOGIN_PARTS)
_LOCKED_LOGIN = (
    select(
        _COUNTS.email_sha256,
        _COUNTS.failures,
        _COUNTS.window_ends_at,
        *(_USERS[name] for name in LockedUser._fields),
    )
    .select_from(User.__table__.outerjoin(LoginFailures.__table__, _OF_KEYS))
    .where(_USERS.id == bindparam("user_id"))
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """What is stored about a sign-in before its password is verified."""

    namesakes: Sequence[FoundUser]
    failures: Mapping[str, Failures]
    last_login_at: datetime | None


async def find_login(
    connection: AsyncConnection, *, keys: LoginKeys, email: str, folded: str, since: datetime
) -> StoredLogin:
    """Return what a sign-in needs to know, in one statement; no row is locked.

    Args:
        email: the address in its normalised form.
        folded: the address in the coarser form that older versions stored.
        since: earlier sign-ins from the address do not count.
    """
    names = {"email": email, "folded": folded, "since": since}
    namesakes: list[FoundUser] = []
    failures: dict[str, Failures] = {}
    last_login_at = None
    for key, address, password_hash, time, count in await connection.execute(
        _LOGIN, keys._asdict() | names
    ):
        if address is not None:
            namesakes.append(FoundUser(key, address, password_hash, time))
        elif count is not None:
            failures[key] = Failures(count, time)
        else:
            last_login_at = time
    return StoredLogin(namesakes, failures, last_login_at)


async def lock_login(
    session: AsyncSession, *, user_id: str, keys: LoginKeys
) -> tuple[LockedUser, dict[str, Failures]] | None:
    """Lock a user, and then the failures of each key, in one statement; None without the user."""
    rows = (await session.execute(_LOCKED_LOGIN, {"user_id": user_id, **keys._asdict()})).all()
    if not rows:
        return None
    failures = {
        key: Failures(count, ends_at) for key, count, ends_at, *_ in rows if key is not None
    }
    return LockedUser(*rows[0][3:]), failures


# -- failed sign-ins -----------------------------------------------------------------------------


async def find_failures(
    session: AsyncSession, *, keys: LoginKeys, lock: bool = False
) -> dict[str, Failures]:
    """Return the failures of each key, in a window that may have ended; `lock` locks the rows."""
    statement = _LOCKED_FAILURES if lock else _FAILURES
    rows = await session.execute(statement, keys._asdict())
    return {key: Failures(count, window_ends_at) for key, count, window_ends_at in rows}


async def count_failure(
    session: AsyncSession,
    *,
    keys: LoginKeys,
    limits: Mapping[str, int],
    now: datetime,
    window_ends: Sequence[datetime],
) -> dict[str, Failures]:
    """Count one failure under each key, atomically across processes.

    A new window starts if the last one has ended. Keys are updated in sorted order to avoid
    deadlocks between sign-ins.

    Args:
        limits: by key, the number of failures that locks it.
        window_ends: when a new window ends, by the number of locks in a row before it; the windows
            of `keys.user` do not grow.
    """
    failures, locks = LoginFailures.failures, LoginFailures.locks
    ended = await _list_ended(session, keys=keys, now=now)
    for key in sorted(keys):
        if key in ended:
            ends = window_ends[:1] if key == keys.user else window_ends
            await _restart_window(session, key=key, limit=limits[key], now=now, ends=ends)
        first = {
            "email_sha256": key,
            "failures": 1,
            "window_ends_at": window_ends[0],
            "locks": int(limits[key] == 1),
        }
        # The order matters: in MySQL, later assignments see the new values of earlier ones.
        changes = [
            ("locks", case((failures + 1 == limits[key], locks + 1), else_=locks)),
            ("failures", failures + 1),
        ]
        await upsert(session, LoginFailures, first, changes)
    return await find_failures(session, keys=keys)


async def _list_ended(session: AsyncSession, *, keys: LoginKeys, now: datetime) -> Sequence[str]:
    """Return the keys whose windows have ended; no row is locked."""
    ended = select(LoginFailures.key_sha256).where(
        LoginFailures.key_sha256.in_(sorted(keys)), LoginFailures.window_ends_at <= now
    )
    return (await session.scalars(ended)).all()


async def _restart_window(
    session: AsyncSession, *, key: str, limit: int, now: datetime, ends: Sequence[datetime]
) -> None:
    """Start a new window without failures, unless another transaction already did.

    In two statements, because databases differ in whether an assignment sees earlier ones.

    Args:
        ends: when it ends, by the number of locks in a row before it; the last one is the longest.
    """
    locks = LoginFailures.locks
    ended = (
        update(LoginFailures)
        .where(LoginFailures.key_sha256 == key, LoginFailures.window_ends_at <= now)
        .execution_options(synchronize_session=False)
    )
    was_locked = LoginFailures.failures >= limit
    await session.execute(
        ended.ordered_values(
            (locks, case((was_locked, locks), else_=0)), (LoginFailures.failures, 0)
        )
    )
    end = case(*((locks == count, each) for count, each in enumerate(ends)), else_=ends[-1])
    await session.execute(ended.values(window_ends_at=end))


async def delete_failures(session: AsyncSession, *, key: str) -> None:
    await session.execute(delete(LoginFailures).where(LoginFailures.key_sha256 == key))


# -- known addresses -----------------------------------------------------------------------------


async def find_last_login(session: AsyncSession, *, pair: str, since: datetime) -> datetime | None:
    """Return when a user last signed in from an address, if that was after `since`."""
    last: datetime | None = await session.scalar(_LAST_LOGIN, {"pair": pair, "since": since})
    return last


async def remember_address(
    session: AsyncSession, *, pair: str, user_id: str, now: datetime, limit: int
) -> None:
    """Store that a user signed in from an address, keeping only the `limit` most recent ones."""
    login = {"user_id": user_id, "last_login_at": now}
    await upsert(session, KnownAddress, {"pair_sha256": pair, **login}, list(login.items()))
    surplus_addresses = (
        select(KnownAddress.pair_sha256)
        .where(KnownAddress.user_id == user_id)
        .order_by(KnownAddress.last_login_at.desc())
        .offset(limit)
        .limit(limit)
    )
    if surplus := (await session.scalars(surplus_addresses)).all():
        await session.execute(delete(KnownAddress).where(KnownAddress.pair_sha256.in_(surplus)))


# -- refresh families ----------------------------------------------------------------------------


async def add_family(session: AsyncSession, family: RefreshFamily) -> None:
    row = {column.key: getattr(family, column.key) for column in RefreshFamily.__table__.columns}
    await session.execute(_ADD_FAMILY, row)


async def find_family(session: AsyncSession, *, family_id: str) -> RefreshFamily | None:
    return await session.get(RefreshFamily, family_id)


async def rotate_family(
    session: AsyncSession,
    *,
    family_id: str,
    client_id: str | None,
    old_sha256: str,
    new_sha256: str,
    now: datetime,
) -> bool:
    """Replace the secret of a client's family; return False if the old one is not current or has
    expired."""
    statement = (
        update(RefreshFamily)
        .where(
            RefreshFamily.id == family_id,
            RefreshFamily.client_id == client_id,
            RefreshFamily.secret_sha256 == old_sha256,
            RefreshFamily.expires_at > now,
        )
        .values(secret_sha256=new_sha256)
    )
    result = cast(CursorResult[Any], await session.execute(statement))
    return result.rowcount == 1


async def list_families(session: AsyncSession, *, user_id: str) -> Sequence[RefreshFamily]:
    """Return a user's refresh families, oldest first."""
    owned = select(RefreshFamily).where(RefreshFamily.user_id == user_id)
    return (await session.scalars(owned.order_by(RefreshFamily.created_at))).all()


async def delete_families(
    session: AsyncSession, *, user_id: str, organisation_id: str | None = None
) -> None:
    """Delete all refresh tokens of a user, or those for an organisation."""
    owned = delete(RefreshFamily).where(RefreshFamily.user_id == user_id)
    if organisation_id is not None:
        owned = owned.where(RefreshFamily.organisation_id == organisation_id)
    await session.execute(owned)


async def delete_families_at(session: AsyncSession, *, client_id: str) -> None:
    await session.execute(delete(RefreshFamily).where(RefreshFamily.client_id == client_id))


async def delete_family(session: AsyncSession, *, family_id: str) -> None:
    await session.execute(delete(RefreshFamily).where(RefreshFamily.id == family_id))


async def add_family_token(session: AsyncSession, token: FamilyToken) -> None:
    session.add(token)
    await session.flush()


async def list_family_tokens(
    session: AsyncSession, *, family_id: str, now: datetime
) -> Sequence[FamilyToken]:
    """Return the access tokens of a family that are still valid, those that expire first first."""
    valid = select(FamilyToken).where(
        FamilyToken.family_id == family_id, FamilyToken.expires_at > now
    )
    in_order = valid.order_by(FamilyToken.expires_at, FamilyToken.token_id)
    return (await session.scalars(in_order)).all()


async def delete_expired(
    session: AsyncSession, *, now: datetime, known_since: datetime, locked_since: datetime
) -> None:
    """Delete closed windows, expired families, and addresses not used since `known_since`.

    A window that reached its limit is kept until it has been closed since `locked_since`.
    """
    await session.execute(delete(KnownAddress).where(KnownAddress.last_login_at < known_since))
    forgotten = or_(LoginFailures.locks == 0, LoginFailures.window_ends_at <= locked_since)
    await session.execute(
        delete(LoginFailures).where(LoginFailures.window_ends_at <= now, forgotten)
    )
    await session.execute(delete(RefreshFamily).where(RefreshFamily.expires_at <= now))
    await session.execute(delete(FamilyToken).where(FamilyToken.expires_at <= now))
