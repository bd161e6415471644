"""Count failed guesses of a user's password or code, and refuse further ones after too many.

`attempts` has the rules. Whatever checks a secret that belongs to a user goes through here, in two
steps: `check_standing` before the secret is verified, and again, with locked rows, in the
transaction that then calls `count_failure` or `remember_success`. A sign-in reads and locks the
same rows together with its user's, and calls `judge`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.tokens import repository
from services.auth.tokens.attempts import (
    KNOWN_FOR,
    KNOWN_TO_WITHIN,
    MAX_KNOWN,
    Failures,
    LoginKeys,
    find_lock,
    key_limits,
    login_keys,
    window_ends,
)
from services.common.errors import ServiceError


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """The limits of an installation, from its settings."""

    attempts: int
    """Failures allowed for a user from one address."""
    window_s: int
    """Seconds in which they are counted."""


MAIL_LIMITS = GuessLimits(attempts=5, window_s=3600)
"""For the e-mails that strangers can cause; see `count_mail`."""


class TooManyGuesses(ServiceError):
    """Too many failed attempts for this user or from this address."""

    status = 429
    code = "too_many_attempts"
    detail = "Too many attempts; try again later."

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after_s)})


@dataclass(frozen=True, slots=True)
class Standing:
    """What earlier guesses mean for the next one."""

    known: bool
    """Whether the user has signed in from this address before."""
    retry_after_s: int | None
    """Seconds until another guess is allowed; None if it is allowed now."""
    locks: bool = False
    """Whether the failure that was just counted is the last one allowed."""
    last_login_at: datetime | None = None
    """When the user last signed in from this address; None if it is not known."""
    has_failures: bool = False
    """Whether failures of the user from this address are stored, in a window that may have
    ended."""


def known_since() -> datetime:
    """Return since when an address must have been used to count as known."""
    return datetime.now(UTC) - KNOWN_FOR


async def check_standing(
    session: AsyncSession, *, keys: LoginKeys, limits: GuessLimits, lock: bool = False
) -> Standing:
    """Return whether a guess is allowed; `lock` locks the counters until the transaction ends.

    Without a lock, an address only counts as known if there are failures to judge.
    """
    stored = await repository.find_failures(session, keys=keys, lock=lock)
    last_login_at = None
    if stored or lock:
        last_login_at = await repository.find_last_login(
            session, pair=keys.pair, since=known_since()
        )
    return judge(keys, stored, last_login_at=last_login_at, limits=limits)


def judge(
    keys: LoginKeys,
    stored: Mapping[str, Failures],
    *,
    last_login_at: datetime | None,
    limits: GuessLimits,
) -> Standing:
    """Return whether a guess is allowed.

    Args:
        stored: the failures of each key, in a window that may have ended.
        last_login_at: when the user last signed in from this address, if that counts.
    """
    now = datetime.now(UTC)
    known = last_login_at is not None
    failures = {key: each for key, each in stored.items() if each.window_ends_at > now}
    ends_at = find_lock(keys, failures, known=known, limit=limits.attempts, counted=False)
    return Standing(
        known,
        _seconds_until(ends_at, now=now),
        last_login_at=last_login_at,
        has_failures=keys.pair in stored,
    )


async def count_failure(
    session: AsyncSession, *, keys: LoginKeys, limits: GuessLimits, known: bool
) -> Standing:
    """Count a failed guess; the result says whether it exceeded a limit, as concurrent ones can."""
    now = datetime.now(UTC)
    failures = await repository.count_failure(
        session,
        keys=keys,
        limits=key_limits(keys, limit=limits.attempts),
        now=now,
        window_ends=window_ends(now, window_s=limits.window_s),
    )
    ends_at = find_lock(keys, failures, known=known, limit=limits.attempts, counted=True)
    locks = find_lock(keys, failures, known=known, limit=limits.attempts, counted=False)
    return Standing(known, _seconds_until(ends_at, now=now), locks=locks is not None)


async def count_mail(session: AsyncSession, *, email: str, address: str) -> None:
    """Count an e-mail that a request causes, so that nobody can flood a mailbox.

    Addresses with and without a user count the same.

    Raises:
        TooManyGuesses: too many e-mails to this address, or from this IP address.
    """
    keys = login_keys(email, client=address, purpose="mail-")
    standing = await check_standing(session, keys=keys, limits=MAIL_LIMITS, lock=True)
    if standing.retry_after_s is None:
        standing = await count_failure(session, keys=keys, limits=MAIL_LIMITS, known=False)
    if standing.retry_after_s is not None:
        raise TooManyGuesses(retry_after_s=standing.retry_after_s)


async def remember_success(
    session: AsyncSession, keys: LoginKeys, *, user_id: str, standing: Standing
) -> None:
    """Forget the failures of a user from an address, and remember the address.

    Args:
        standing: before the sign-in, from the same transaction.
    """
    now = datetime.now(UTC)
    if standing.has_failures:
        await repository.delete_failures(session, key=keys.pair)
    if standing.last_login_at is None or standing.last_login_at < now - KNOWN_TO_WITHIN:
        await repository.remember_address(
            session, pair=keys.pair, user_id=user_id, now=now, limit=MAX_KNOWN
        )


def _seconds_until(ends_at: datetime | None, *, now: datetime) -> int | None:
    return None if ends_at is None else max(1, math.ceil((ends_at - now).total_seconds()))
