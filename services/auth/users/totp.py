"""The second factor: time-based one-time passwords (RFC 6238), and recovery codes.

Each code is good once, in whichever replica it is used: accepting one is a single conditional
statement in the transaction of the sign-in.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time

import pyotp
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import User
from services.auth.signing.vault import Vault
from services.auth.users import repository
from services.auth.users.shapes import LoginUser
from services.common.errors import BodyInvalid, ServiceError

STEP_S = 30
RECOVERY_CODES = 10
_ISSUER = "Tollgate"
_TOLERATED_STEPS = (0, -1, 1)
"""Clocks may differ by one step."""


log = structlog.get_logger()


class TotpEnabled(ServiceError):
    """The second factor is already on."""

    status = 409
    code = "totp_enabled"
    detail = "The second factor is already on; turn it off first."


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a user enters in an authenticator app, shown once."""

    secret: str
    uri: str
    recovery_codes: list[str]


async def start_enrolment(session: AsyncSession, *, user: User, vault: Vault) -> Enrolment:
    """Give a user a new secret and new recovery codes; sign-ins need them only once confirmed.

    Raises:
        TotpEnabled: the user's second factor is already on.
    """
    if user.totp_confirmed_at is not None:
        raise TotpEnabled()
    secret = pyotp.random_base32()
    codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
    user.totp_secret = vault.encrypt(base64.b32decode(secret), owner=user.id)
    user.totp_last_step = None
    digests = [_digest(user.id, code) for code in codes]
    await repository.replace_recovery_codes(session, user_id=user.id, digests=digests)
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=_ISSUER)
    return Enrolment(secret, uri, codes)


async def confirm_enrolment(
    session: AsyncSession, *, user: User, code: str, vault: Vault, address: str
) -> None:
    """Turn the second factor on, with a code that shows that the app has the secret.

    Raises:
        TotpEnabled: it is already on.
        BodyInvalid: the code is wrong, or there is no secret yet.
    """
    if user.totp_confirmed_at is not None:
        raise TotpEnabled()
    if not await _accept_totp(session, user=user, code=code, vault=vault):
        raise BodyInvalid([{"loc": ["body", "code"], "msg": "This code is wrong or has expired."}])
    user.totp_confirmed_at = datetime.now(UTC)
    await _note_change(session, user, "totp_enabled", actor=user.id, address=address)


async def disable(
    session: AsyncSession, *, user: User, actor: str, address: str | None = None
) -> bool:
    """Turn the second factor off and forget its secret and recovery codes.

    Args:
        actor: id of the user, or `OPERATOR`.

    Returns:
        Whether it was on.
    """
    was_on = user.totp_confirmed_at is not None
    user.totp_secret = user.totp_confirmed_at = user.totp_last_step = None
    await repository.replace_recovery_codes(session, user_id=user.id, digests=[])
    if was_on:
        await _note_change(session, user, "totp_disabled", actor=actor, address=address)
    return was_on


async def accept_code(
    session: AsyncSession, *, user: LoginUser, code: str, vault: Vault, address: str
) -> bool:
    """Use up a code of the app or a recovery code; return False if it is wrong or was used."""
    if await _accept_totp(session, user=user, code=code, vault=vault):
        return True
    digest = _digest(user.id, code)
    if not await repository.delete_recovery_code(session, user_id=user.id, digest=digest):
        return False
    await record(session, "recovery_code_used", actor=user.id, target=user.id, address=address)
    return True


def matching_step(secret: str, code: str, *, now: float) -> int | None:
    """Return the time step whose code this is, or None if no step near now has it.

    Args:
        now: seconds since 1970.
    """
    digits = code.replace(" ", "")
    if not re.fullmatch(r"[0-9]{6}", digits):
        return None
    totp, current = pyotp.TOTP(secret, interval=STEP_S), int(now) // STEP_S
    for offset in _TOLERATED_STEPS:
        expected = totp.generate_otp(current + offset)
        if hmac.compare_digest(expected, digits):
            return current + offset
    return None


async def _accept_totp(session: AsyncSession, *, user: LoginUser, code: str, vault: Vault) -> bool:
    if user.totp_secret is None:
        return False
    try:
        secret = base64.b32encode(vault.decrypt(user.totp_secret, owner=user.id)).decode()
    except ValueError:  # the database has another encryption key than when it was stored
        log.error("totp_secret_unreadable", user=user.id)
        return False
    step = matching_step(secret, code, now=time())
    if step is None:
        return False
    return await repository.advance_totp(session, user_id=user.id, step=step)


async def _note_change(
    session: AsyncSession, user: User, action: str, *, actor: str, address: str | None
) -> None:
    await record(session, action, actor=actor, target=user.id, address=address)
    await queue_mail(session, Kind.TOTP_CHANGED, email=user.email, user_id=user.id, address=address)


def _new_recovery_code() -> str:
    """Return a code of 80 random bits, in four groups."""
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


def _digest(user_id: str, code: str) -> str:
    letters = re.sub(r"[\s-]", "", code).lower()
    return hashlib.sha256(f"{user_id}\0{letters}".encode("utf-8", "surrogatepass")).hexdigest()
