"""Log in with e-mail, password and, if the user has one, a second factor; the password grant.

Passwords are verified between two transactions, not inside one, so a log-in that waits for a CPU
holds no database connection and, on SQLite, blocks no writer.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import User
from services.auth.organisations.memberships import find_account
from services.auth.tokens.attempts import LoginKeys, login_keys
from services.auth.tokens.errors import (
    InvalidGrant,
    MfaRequired,
    OAuthError,
    TooManyAttempts,
    WrongAccount,
)
from services.auth.tokens.guesses import (
    Standing,
    check_standing,
    count_failure,
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
from services.auth.users.service import find_user_by_email, lock_unchanged
from services.common.db.retrying import in_transaction

T = TypeVar("T")

_WRONG_LOGIN = "Incorrect e-mail or password."


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
    """Log in, and issue tokens to the user.

    Args:
        account: one of the user's accounts; default the personal one.

    Raises:
        InvalidScope: the user's role in the account lacks a requested scope.
        WrongAccount: the user cannot act for the account.
        InvalidGrant, MfaRequired, TooManyAttempts, Unavailable: as `log_in`.
    """

    async def issue(session: AsyncSession, user: User) -> IssuedToken:
        own = await find_account(session, user=user, account_id=account)
        if own is None:
            raise WrongAccount()
        granted = grant_scope(scope, allowed=own.scope)
        refresh_token = await create_family(session, issuer, user, own, granted)
        return issue_to_user(issuer, user, own, granted, refresh_token)

    return await log_in(
        issuer, username=username, password=password, code=code, address=address, then=issue
    )


async def log_in(
    issuer: Issuer,
    *,
    username: str,
    password: str,
    code: str | None,
    address: str,
    then: Callable[[AsyncSession, User], Awaitable[T]],
    without_code: Callable[[AsyncSession, User], Awaitable[T]] | None = None,
) -> T:
    """Log in with e-mail and password from an IP address.

    An unknown e-mail takes the same time, counts the same and gets the same response as a wrong
    password. The result is decided in the transaction that counts the failure, so however many
    guesses run concurrently, in any number of processes, only the first few reveal anything.

    Args:
        code: of the authenticator app or a recovery code, for users with a second factor.
        then: what to do for the user, in the same transaction, which may be tried again.
        without_code: the same, for a user who needs a code if it is missing; default `MfaRequired`.

    Returns:
        What `then` or `without_code` returns.

    Raises:
        InvalidGrant: the password or the code is wrong, or the user is unknown or disabled.
        MfaRequired: the password is right, and there is no code.
        TooManyAttempts: too many failures (see `tokens.attempts`), even if the password is right.
        Unavailable: too many passwords are being checked, or the database is unavailable.
    """
    keys = login_keys(username, client=address)
    with issuer.hasher.reserve():
        async with issuer.database.snapshot() as session:
            await _refuse_locked(session, issuer, keys)
            user = await find_user_by_email(session, email=username)
        enabled = user if user is not None and user.disabled_at is None else None
        matches = await issuer.hasher.verify(password, enabled.password_hash if enabled else None)

        async def decide(session: AsyncSession) -> T | Standing:
            # The user's row comes before the counters, in every transaction that locks both.
            stored = await lock_unchanged(session, user=enabled) if enabled and matches else None
            if stored is not None and stored.totp_confirmed_at and without_code and code is None:
                return await without_code(session, stored)
            known = await _refuse_locked(session, issuer, keys, lock=True)
            if stored is None or not await _passes_second_factor(
                session, issuer, user=stored, code=code, address=address
            ):
                return await count_failure(session, keys=keys, limits=issuer.limits, known=known)
            return await _succeed(session, issuer, keys, user=stored, address=address, then=then)

        outcome = await in_transaction(issuer.database, decide)
    if isinstance(outcome, Standing):
        raise _failed(issuer, keys, user=user, standing=outcome, address=address)
    return outcome


async def log_in_with_code(
    issuer: Issuer,
    *,
    user: User,
    code: str,
    address: str,
    then: Callable[[AsyncSession, User], Awaitable[T]],
) -> T:
    """Complete the log-in of a user who has just entered the right password; return `then`'s value.

    Wrong codes count like wrong passwords.

    Raises:
        InvalidGrant: the code is wrong or was used, or the user was meanwhile disabled or changed.
        TooManyAttempts: too many failures, even if the code is right.
        Unavailable: the database is unavailable.
    """
    keys = login_keys(user.email, client=address)

    async def decide(session: AsyncSession) -> T | Standing:
        stored = await lock_unchanged(session, user=user)
        known = await _refuse_locked(session, issuer, keys, lock=True)
        if stored is None or not await _passes_second_factor(
            session, issuer, user=stored, code=code, address=address
        ):
            return await count_failure(session, keys=keys, limits=issuer.limits, known=known)
        return await _succeed(session, issuer, keys, user=stored, address=address, then=then)

    outcome = await in_transaction(issuer.database, decide)
    if isinstance(outcome, Standing):
        raise _failed(issuer, keys, user=user, standing=outcome, address=address)
    return outcome


async def _succeed(
    session: AsyncSession,
    issuer: Issuer,
    keys: LoginKeys,
    *,
    user: User,
    address: str,
    then: Callable[[AsyncSession, User], Awaitable[T]],
) -> T:
    await remember_success(session, keys, user_id=user.id)
    result = await then(session, user)
    await record(session, "login_succeeded", actor=user.id, target=user.id, address=address)
    issuer.logins.labels("succeeded").inc()
    return result


def _failed(
    issuer: Issuer, keys: LoginKeys, *, user: User | None, standing: Standing, address: str
) -> OAuthError:
    """Note a failed log-in; return the error to raise."""
    issuer.logins.labels("failed").inc()
    target = user.id if user is not None else f"unknown:{keys.user[:16]}"
    issuer.failures.note("login_failed", target=target, address=address)
    if standing.locks:
        issuer.failures.note("login_locked", target=target, address=address)
    if standing.retry_after_s is not None:
        return TooManyAttempts(retry_after_s=standing.retry_after_s)
    return InvalidGrant(_WRONG_LOGIN)


async def _passes_second_factor(
    session: AsyncSession, issuer: Issuer, *, user: User, code: str | None, address: str
) -> bool:
    """Use up the code of a user whose password is right; True if the user needs none.

    Raises:
        MfaRequired: a code is needed but missing.
    """
    if user.totp_confirmed_at is None:
        return True
    if code is None:
        raise MfaRequired()
    return await totp.accept_code(
        session, user=user, code=code, vault=issuer.vault, address=address
    )


async def _refuse_locked(
    session: AsyncSession, issuer: Issuer, keys: LoginKeys, *, lock: bool = False
) -> bool:
    """Refuse a log-in after too many failures; return whether its address is known."""
    standing = await check_standing(session, keys=keys, limits=issuer.limits, lock=lock)
    if standing.retry_after_s is not None:
        issuer.logins.labels("refused").inc()
        raise TooManyAttempts(retry_after_s=standing.retry_after_s)
    return standing.known
