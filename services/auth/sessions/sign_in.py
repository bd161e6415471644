"""Sign in with a browser: by password and, if the user has one, the second factor."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import User
from services.auth.sessions.service import await_code, start_session
from services.auth.tokens.password_grant import complete_sign_in, sign_in
from services.auth.tokens.service import Issuer
from services.auth.users.shapes import LoginUser


@dataclass(frozen=True, slots=True)
class Entered:
    """A right password or code, and the browser's new cookie."""

    secret: str
    needs_code: bool = False


async def sign_in_with_password(
    issuer: Issuer, *, email: str, password: str, replaced: str | None, address: str
) -> Entered:
    """Check a password and sign the user in, or remember that a code must follow.

    Args:
        replaced: the secret of the browser's cookie so far.

    Raises:
        InvalidGrant, TooManyAttempts, Unavailable: as `sign_in`.
    """

    async def start(session: AsyncSession, user: LoginUser) -> Entered:
        return Entered(await _start(session, issuer, user, replaced))

    async def ask(session: AsyncSession, user: LoginUser) -> Entered:
        secret = await await_code(session, user=user, replaced=replaced)
        return Entered(secret, needs_code=True)

    return await sign_in(
        issuer,
        username=email,
        password=password,
        code=None,
        address=address,
        then=start,
        without_code=ask,
    )


async def sign_in_with_code(
    issuer: Issuer, *, user: User, code: str, replaced: str, address: str
) -> Entered:
    """Check the code of a user whose password was right, and sign the user in.

    Raises:
        InvalidGrant, TooManyAttempts, Unavailable: as `complete_sign_in`.
    """

    async def start(session: AsyncSession, user: LoginUser) -> Entered:
        return Entered(await _start(session, issuer, user, replaced))

    return await complete_sign_in(issuer, user=user, code=code, address=address, then=start)


async def _start(
    session: AsyncSession, issuer: Issuer, user: LoginUser, replaced: str | None
) -> str:
    lifetime_s = issuer.settings.session_seconds
    return await start_session(session, user=user, lifetime_s=lifetime_s, replaced=replaced)
