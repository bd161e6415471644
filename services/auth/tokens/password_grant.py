"""The password grant: sign in with e-mail address, password and perhaps a second factor.

Passwords are verified between two transactions, not inside one, so a sign-in that waits for a CPU
holds no database connection and, on SQLite, blocks no writer.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import User
from services.auth.organisations.memberships import find_account
from services.auth.tokens import repository
from services.auth.tokens.attempts import Failures, LoginKeys, login_keys
from services.auth.tokens.errors import (
    InvalidGrant,
    MfaRequired,
    TooManyAttempts,
    WrongAccount,
)
from services.auth.tokens.guesses import (
    Standing,
    check_standing,
    count_failure,
    judge,
    known_since,
    remember_success,
)
from services.auth.tokens.service import (
    IssuedToken,
    Issuer,
    create_family,
    grant_scope,
    issue_to_user,
)
from services.auth.users import totp
from services.auth.users.emails import fold_email, normalise_email
from services.auth.users.service import choose_namesake, is_unchanged, lock_unchanged
from services.auth.users.shapes import LoginUser, Namesake
from services.common.db.retrying import in_transaction

T = TypeVar("T")
OnLogin = Callable[[AsyncSession, LoginUser], Awaitable[T]]
"""What to do for a user who signs in, in the same transaction, which may be tried again."""

_WRONG_LOGIN = "Incorrect e-mail address or password."


async def grant_password(
    issuer: Issuer,
    *,
    username: str,
    password: str,
    code: str | None,
    scope: str | None,
    account: str | None,
    address: str,
) -> IssuedToken:
    """Sign in, and issue tokens to the user.

    Args:
        account: one of the user's accounts; default the personal one.

    Raises:
        InvalidScope: the user's role in the account lacks a requested scope.
        WrongAccount: the user cannot act for the account.
        InvalidGrant, MfaRequired, TooManyAttempts, Unavailable: as `sign_in`.
    """

    async def issue(session: AsyncSession, user: LoginUser) -> IssuedToken:
        own = await find_account(session, user=user, account_id=account)
        if own is None:
            raise WrongAccount()
        granted = grant_scope(scope, allowed=own.scope)
        refresh_token = await create_family(session, issuer, user, own, granted)
        return issue_to_user(issuer, user, own, granted, refresh_token)

    return await sign_in(
        issuer, username=username, password=password, code=code, address=address, then=issue
    )


async def sign_in(
    issuer: Issuer,
    *,
    username: str,
    password: str,
    code: str | None,
    address: str,
    then: OnLogin[T],
    without_code: OnLogin[T] | None = None,
) -> T:
    """Sign in with e-mail address and password from an IP address.

    An unknown address takes the same time, counts the same and gets the same response as a wrong
    password. The result is decided in the transaction that counts the failure, so however many
    guesses run concurrently, in any number of processes, only the first few reveal anything.

    Args:
        code: of the authenticator app or a recovery code, for users with a second factor.
        then: what to do for the user.
        without_code: the same for a user who needs a code, if it is missing; default `MfaRequired`.

    Returns:
        What `then` or `without_code` returns.

    Raises:
        InvalidGrant: the password or the code is wrong, or the user is unknown or disabled.
        MfaRequired: the password is right, and there is no code.
        TooManyAttempts: too many failures (see `tokens.attempts`), even if the password is right.
        Unavailable: too many passwords are being checked, or the database is unavailable.
    """
    keys, normal = login_keys(username, client=address), normalise_email(username)
    attempt = _Attempt(issuer, keys, code, address)
    with issuer.hasher.reserve():
        async with issuer.database.connection() as connection:
            found = await repository.find_login(
                connection,
                keys=keys,
                email=normal,
                folded=fold_email(username),
                since=known_since(),
            )
        last_login_at = found.last_login_at
        _refuse_locked(attempt, _judge(attempt, found.failures, last_login_at))
        user = choose_namesake(found.namesakes, normal=normal)
        enabled = user if user is not None and user.disabled_at is None else None
        matches = await issuer.hasher.verify(password, enabled.password_hash if enabled else None)

        async def decide(session: AsyncSession) -> _Done[T] | Standing:
            right = enabled if matches else None
            stored, failures = await _lock(session, keys, right)
            standing = _judge(attempt, failures, last_login_at)
            return await _decide(
                session, attempt, stored, standing, then=then, without_code=without_code
            )

        outcome = await in_transaction(issuer.database, decide)
    return _finish(attempt, outcome, user_id=user.id if user else None)


async def complete_sign_in(
    issuer: Issuer,
    *,
    user: User,
    code: str,
    address: str,
    then: OnLogin[T],
) -> T:
    """Complete the sign-in of a user whose password was right just now; return `then`'s value.

    Wrong codes count like wrong passwords.

    Raises:
        InvalidGrant: the code is wrong or was used, or the user was meanwhile disabled or changed.
        TooManyAttempts: too many failures, even if the code is right.
        Unavailable: the database is unavailable.
    """
    attempt = _Attempt(issuer, login_keys(user.email, client=address), code, address)

    async def decide(session: AsyncSession) -> _Done[T] | Standing:
        # The user's row comes before the counters, in every transaction that locks both.
        stored = await lock_unchanged(session, user=user)
        standing = await check_standing(session, keys=attempt.keys, limits=issuer.limits, lock=True)
        return await _decide(session, attempt, stored, standing, then=then)

    outcome = await in_transaction(issuer.database, decide)
    return _finish(attempt, outcome, user_id=user.id)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A sign-in that is being decided."""

    issuer: Issuer
    keys: LoginKeys
    code: str | None
    address: str


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    """A sign-in that succeeded, or only lacks the code of the second factor."""

    value: T
    is_complete: bool


async def _lock(
    session: AsyncSession, keys: LoginKeys, user: Namesake | None
) -> tuple[LoginUser | None, Mapping[str, Failures]]:
    """Lock a sign-in's counters and, before them, its user, if the password is right.

    Returns:
        The user, or None if it is not there or has changed; and the failures of each key.
    """
    locked = await repository.lock_login(session, user_id=user.id, keys=keys) if user else None
    if user is None or locked is None:
        return None, await repository.find_failures(session, keys=keys, lock=True)
    stored, failures = locked
    return (stored if is_unchanged(stored, since=user) else None), failures


async def _decide(
    session: AsyncSession,
    attempt: _Attempt,
    user: LoginUser | None,
    standing: Standing,
    *,
    then: OnLogin[T],
    without_code: OnLogin[T] | None = None,
) -> _Done[T] | Standing:
    """Decide a sign-in in one transaction; a `Standing` is a failure, which is counted.

    Args:
        user: whose password is right, locked; None if it is wrong.
        standing: of the counters, locked.
    """
    keys, address = attempt.keys, attempt.address
    _refuse_locked(attempt, standing)
    if user is not None and attempt.code is None and user.totp_confirmed_at and without_code:
        return _Done(await without_code(session, user), is_complete=False)
    if user is None or not await _passes_second_factor(session, attempt, user):
        limits = attempt.issuer.limits
        return await count_failure(session, keys=keys, limits=limits, known=standing.known)
    await remember_success(session, keys, user_id=user.id, standing=standing)
    value = await then(session, user)
    await record(session, "login_succeeded", actor=user.id, target=user.id, address=address)
    return _Done(value, is_complete=True)


def _finish(attempt: _Attempt, outcome: _Done[T] | Standing, *, user_id: str | None) -> T:
    """Count and note a decided sign-in; return its value.

    Raises:
        InvalidGrant, TooManyAttempts: it failed.
    """
    issuer, address = attempt.issuer, attempt.address
    if isinstance(outcome, _Done):
        if outcome.is_complete:
            issuer.logins.labels("succeeded").inc()
        return outcome.value
    issuer.logins.labels("failed").inc()
    target = user_id or f"unknown:{attempt.keys.user[:16]}"
    issuer.failures.note("login_failed", target=target, address=address)
    if outcome.locks:
        issuer.failures.note("login_locked", target=target, address=address)
    if outcome.retry_after_s is not None:
        raise TooManyAttempts(retry_after_s=outcome.retry_after_s)
    raise InvalidGrant(_WRONG_LOGIN)


async def _passes_second_factor(session: AsyncSession, attempt: _Attempt, user: LoginUser) -> bool:
    """Use up the code of a user whose password is right; True if the user needs none.

    Raises:
        MfaRequired: a code is needed but missing.
    """
    if user.totp_confirmed_at is None:
        return True
    if attempt.code is None:
        raise MfaRequired()
    return await totp.accept_code(
        session,
        user=user,
        code=attempt.code,
        vault=attempt.issuer.vault,
        address=attempt.address,
    )


def _judge(
    attempt: _Attempt, failures: Mapping[str, Failures], last_login_at: datetime | None
) -> Standing:
    return judge(attempt.keys, failures, last_login_at=last_login_at, limits=attempt.issuer.limits)


def _refuse_locked(attempt: _Attempt, standing: Standing) -> None:
    """Refuse a sign-in after too many failures."""
    if standing.retry_after_s is not None:
        attempt.issuer.logins.labels("refused").inc()
        raise TooManyAttempts(retry_after_s=standing.retry_after_s)
