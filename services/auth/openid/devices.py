"""Sign in a device without a browser, such as a command line (RFC 8628).

The device shows a short code. A person enters it on a page, in any browser, and decides there. The
device asks for the result meanwhile.
"""

import enum
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.clients.credentials import find_client, secret_digest
from services.auth.models import Client, User
from services.auth.openid import repository
from services.auth.openid.accounts import choose_account
from services.auth.openid.errors import AuthorizationError
from services.auth.openid.grants import issue_to_app
from services.auth.openid.models import DeviceCode
from services.auth.openid.requests import choose_scope, limit_scope
from services.auth.organisations.memberships import find_account
from services.auth.sessions.service import SignedIn, is_current, not_before
from services.auth.tokens.attempts import address_keys, login_keys
from services.auth.tokens.errors import (
    AccessDenied,
    AuthorizationPending,
    ExpiredToken,
    InvalidGrant,
    InvalidScope,
    OAuthError,
    SlowDown,
    TooManyAttempts,
    UnauthorizedClient,
)
from services.auth.tokens.guesses import GuessLimits, TooManyGuesses, check_standing, count_failure
from services.auth.tokens.service import IssuedToken, Issuer
from services.auth.users.service import lock_user
from services.common.errors import Unavailable

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LIFETIME = timedelta(minutes=10)
INTERVAL_S = 5
KEPT_FOR = timedelta(hours=1)
"""How long a device learns that its code has expired, before the code is unknown."""

_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters without vowels, so that no code is a word (RFC 8628 §6.1)."""
_USER_CODE_CHARS = 8
_STARTS = GuessLimits(attempts=60, window_s=600)
"""How many devices may start from one address: they write to the database without credentials."""
_MAX_TRIES = 5


@dataclass(frozen=True, slots=True)
class StartedDevice:
    """The codes of a device that has just started."""

    device_code: str
    user_code: str
    """With a hyphen in the middle."""


async def start_device(
    issuer: Issuer, *, client: Client, scope: str | None, address: str
) -> StartedDevice:
    """Let a device wait for a person; only digests of its codes are stored.

    Raises:
        UnauthorizedClient: the client is not public.
        InvalidScope: the client is not registered with a scope.
        TooManyAttempts: too many devices have started from this address.
    """
    if client.type != "public":
        raise UnauthorizedClient("Only a public client may start a device.")
    try:
        wanted = choose_scope(scope, client_scope=client.scope)
    except AuthorizationError as error:
        raise InvalidScope() from error
    keys = address_keys(client=address, purpose="device-start-")
    async with issuer.database.transaction() as session:
        standing = await check_standing(session, keys=keys, limits=_STARTS, lock=True)
        if standing.retry_after_s is None:
            standing = await count_failure(session, keys=keys, limits=_STARTS, known=True)
        if standing.retry_after_s is not None:
            raise TooManyAttempts(retry_after_s=standing.retry_after_s)
        for _ in range(_MAX_TRIES):
            started = await _add_device(session, client=client, scope=wanted)
            if started is not None:
                return started
    raise Unavailable("No code is free; retry in 1 s.")


@dataclass(frozen=True, slots=True)
class WaitingDevice:
    """What the page shows about a device."""

    client_name: str
    scope: str


async def find_device(
    issuer: Issuer, *, user_code: str, user: User, address: str
) -> WaitingDevice | None:
    """Return the device that waits with a code; None if no device does.

    Wrong codes count like failed sign-ins, so that nobody can try many.

    Raises:
        TooManyGuesses: too many wrong codes, even if this one is right.
        AuthorizationError: the person may not have any of the scopes.
    """
    async with issuer.database.transaction() as session:
        device = await _look_up(session, issuer, user_code, user=user, address=address)
        client = await find_client(session, client_id=device.client_id) if device else None
        if device is not None and client is not None:
            scope = await _limited_scope(session, device, user)
            return WaitingDevice(client.name, scope)
    issuer.failures.note("device_rejected", actor=user.id, address=address)
    return None


async def decide_device(
    issuer: Issuer, *, user_code: str, signed_in: SignedIn, approve: bool, address: str
) -> bool:
    """Approve or deny a device; return False if none waits with this code any more.

    Raises:
        TooManyGuesses: too many wrong codes.
        AuthorizationError: the person may not have any of the scopes.
    """
    user = signed_in.user
    async with issuer.database.transaction() as session:
        device = await _look_up(session, issuer, user_code, user=user, address=address)
        if device is not None:
            action = "device_denied"
            if approve:
                device.scope = await _limited_scope(session, device, user)
                device.user_id, device.approved_at = user.id, not_before(user)
                device.authenticated_at = signed_in.authenticated_at
                action = "device_approved"
            device.denied = not approve
            await record(session, action, actor=user.id, target=device.client_id, address=address)
            return True
    issuer.failures.note("device_rejected", actor=user.id, address=address)
    return False


class DeviceState(enum.Enum):
    """What a device gets when it polls."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    DENIED = "denied"
    APPROVED = "approved"
    TOO_FAST = "too fast"
    PENDING = "pending"


_ERRORS: dict[DeviceState, type[OAuthError]] = {
    DeviceState.UNKNOWN: InvalidGrant,
    DeviceState.EXPIRED: ExpiredToken,
    DeviceState.DENIED: AccessDenied,
    DeviceState.TOO_FAST: SlowDown,
    DeviceState.PENDING: AuthorizationPending,
}


def judge_device(device: DeviceCode, *, client_id: str, now: datetime) -> DeviceState:
    """Return the state of a device code for the client that polls."""
    if device.client_id != client_id:
        return DeviceState.UNKNOWN
    if now >= device.expires_at:
        return DeviceState.EXPIRED
    if device.denied:
        return DeviceState.DENIED
    if device.user_id is not None:
        return DeviceState.APPROVED
    return DeviceState.TOO_FAST if now < device.next_poll_at else DeviceState.PENDING


async def grant_device_code(
    issuer: Issuer, *, client: Client, device_code: str, address: str
) -> IssuedToken:
    """Exchange a device code for tokens once a person has approved the device.

    Raises:
        AuthorizationPending, SlowDown: nobody has approved it yet.
        ExpiredToken, AccessDenied: nobody did in time, or the person denied it.
        InvalidGrant: the code is unknown, another client's, or was used before.
    """
    now = datetime.now(UTC)
    async with issuer.database.transaction() as session:
        digest = secret_digest(device_code)
        owner_id = await repository.find_device_owner(session, device_code_sha256=digest)
        # The person comes first, so that nothing can revoke the tokens while they are issued.
        user = await lock_user(session, user_id=owner_id) if owner_id is not None else None
        device = await repository.lock_device(session, device_code_sha256=digest)
        state = DeviceState.UNKNOWN
        if device is not None:
            state = judge_device(device, client_id=client.client_id, now=now)
            if state is DeviceState.APPROVED and device.user_id != owner_id:
                state = DeviceState.PENDING  # it was approved just now; the device asks again
            if state in (DeviceState.PENDING, DeviceState.TOO_FAST):
                device.interval_s += INTERVAL_S if state is DeviceState.TOO_FAST else 0
                device.next_poll_at = now + timedelta(seconds=device.interval_s)
            if state is DeviceState.APPROVED:
                await repository.delete_device(session, device_code_sha256=digest)
                issued = await _issue(session, issuer, device, user)
                if issued is not None:
                    return issued
                state = DeviceState.UNKNOWN  # the person was meanwhile disabled, or the like
    if state is DeviceState.UNKNOWN:
        issuer.failures.note("device_code_rejected", target=client.client_id, address=address)
    raise _ERRORS[state]("The device code is invalid." if state is DeviceState.UNKNOWN else None)


async def delete_expired_devices(session: AsyncSession, *, now: datetime) -> None:
    """Delete devices that nobody approved in time."""
    await repository.delete_devices(session, expired_before=now - KEPT_FOR)


def normalise_user_code(text: str) -> str:
    """Return a code as typed in one spelling: upper case, only letters."""
    return "".join(each for each in text.upper() if each in _ALPHABET)[: 2 * _USER_CODE_CHARS]


def show_user_code(code: str) -> str:
    """Return a normalised code as people read it."""
    return f"{code[:4]}-{code[4:]}"


async def _add_device(session: AsyncSession, *, client: Client, scope: str) -> StartedDevice | None:
    """Store a new device; return None if its random code is taken."""
    now, device_code = datetime.now(UTC), secrets.token_urlsafe(32)
    user_code = "".join(secrets.choice(_ALPHABET) for _ in range(_USER_CODE_CHARS))
    device = DeviceCode(
        device_code_sha256=secret_digest(device_code),
        user_code_sha256=secret_digest(user_code),
        client_id=client.client_id,
        scope=scope,
        expires_at=now + LIFETIME,
        next_poll_at=now,
        interval_s=INTERVAL_S,
        denied=False,
    )
    if not await repository.add_device(session, device):
        return None
    return StartedDevice(device_code, show_user_code(user_code))


async def _look_up(
    session: AsyncSession, issuer: Issuer, user_code: str, *, user: User, address: str
) -> DeviceCode | None:
    """Return the device that waits with a code, locked; otherwise count a wrong guess."""
    keys = login_keys(user.email, client=address, purpose="device-")
    standing = await check_standing(session, keys=keys, limits=issuer.limits, lock=True)
    if standing.retry_after_s is not None:
        raise TooManyGuesses(retry_after_s=standing.retry_after_s)
    device = await repository.lock_waiting_device(
        session,
        user_code_sha256=secret_digest(normalise_user_code(user_code)),
        now=datetime.now(UTC),
    )
    if device is None:
        await count_failure(session, keys=keys, limits=issuer.limits, known=standing.known)
    return device


async def _limited_scope(session: AsyncSession, device: DeviceCode, user: User) -> str:
    account = await choose_account(session, user=user, account=None)
    return limit_scope(device.scope, allowed=account.scope)


async def _issue(
    session: AsyncSession, issuer: Issuer, device: DeviceCode, user: User | None
) -> IssuedToken | None:
    """Return tokens for the person who approved a device; None if that no longer counts."""
    approved_at, authenticated_at = device.approved_at, device.authenticated_at
    if user is None or approved_at is None or authenticated_at is None:
        return None
    account = await find_account(session, user=user)
    if account is None or not is_current(user, approved_at):
        return None
    _, issued = await issue_to_app(
        session,
        issuer,
        user=user,
        account=account,
        client_id=device.client_id,
        scope=device.scope,
        authenticated_at=authenticated_at,
    )
    return issued
