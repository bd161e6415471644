"""Issue tokens by the grants of RFC 6749; `password_grant` has the one that people use."""

import math
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys.credentials import delete_expired_keys
from services.auth.audit.failures import FailureLog
from services.auth.audit.service import record
from services.auth.callers import FIRST_PARTY
from services.auth.clients.credentials import is_authentic, is_usable_app, secret_digest
from services.auth.clients.reader import ClientReader
from services.auth.keys import KeyRing
from services.auth.models import Client, FamilyToken, RefreshFamily, User
from services.auth.organisations.invitations import delete_expired_invitations
from services.auth.organisations.memberships import Account, find_account
from services.auth.passwords import PasswordHasher
from services.auth.revocations.service import delete_expired_revocations
from services.auth.roles import PERSONAL, scopes_of
from services.auth.settings import AuthSettings
from services.auth.signing.vault import Vault
from services.auth.tokens import repository
from services.auth.tokens.attempts import KNOWN_FOR, LOCKS_REMEMBERED_FOR
from services.auth.tokens.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    TooManyRefreshes,
    WrongAccount,
)
from services.auth.tokens.forms import ClientCredentials
from services.auth.tokens.guesses import GuessLimits
from services.auth.tokens.logins import end_family, split_refresh_token
from services.auth.users.service import find_user
from services.auth.users.shapes import LoginUser
from services.common.contracts import AUDIENCE
from services.common.db.database import Database
from services.common.identity.guards import IDENTITY_SCOPES, SCOPES
from services.common.identity.tokens import TokenVerifier

_WRONG_REFRESH = "The refresh token is invalid."

MAX_FAMILY_TOKENS = 100
"""Valid access tokens of a public client's sign-in. Each is revoked by an entry of its own, and all
of them in one transaction, which a thief who refreshes in a loop must not be able to make fail."""
KEYS_SHOWN_FOR = timedelta(days=30)
"""How long an expired API key is still listed."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """The dependencies for issuing tokens; `app.py` creates it once."""

    database: Database
    hasher: PasswordHasher
    keys: KeyRing
    verifier: TokenVerifier
    settings: AuthSettings
    logins: Counter
    """Password sign-ins by result."""
    failures: FailureLog
    vault: Vault
    clients: ClientReader

    @property
    def limits(self) -> GuessLimits:
        return self.settings.guess_limits


def login_counter(registry: CollectorRegistry) -> Counter:
    """Return the counter of password sign-ins; each result is exposed before its first sign-in.

    Prometheus does not see the first increase of a series that did not exist before.
    """
    counter = Counter(
        "tollgate_auth_logins",
        "Password sign-ins by result: succeeded, failed, or refused after too many failures.",
        ["result"],
        registry=registry,
    )
    for result in ("succeeded", "failed", "refused"):
        counter.labels(result)
    return counter


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A successful response of the token endpoint (RFC 6749 §5.1)."""

    access_token: str
    expires_in: int
    scope: str
    refresh_token: str | None = None
    id_token: str | None = None


async def authenticate_client(
    issuer: Issuer, *, credentials: ClientCredentials, address: str
) -> Client:
    """Return the client with these credentials.

    A public client has no secret, and identifies itself without one (RFC 6749 §3.2.1).

    Raises:
        InvalidClient: they are wrong or have expired.
        Unavailable: the database is unavailable.
    """
    client, secret = await issuer.clients.read(credentials.client_id), credentials.client_secret
    is_right = False
    if client is not None and client.type == "public" and not secret:
        async with issuer.database.snapshot() as session:
            is_right = await is_usable_app(session, client)
    elif client is not None:
        is_right = is_authentic(client, client_secret=secret)
    if client is None or not is_right:
        target = _printable(credentials.client_id)
        issuer.failures.note("client_rejected", target=target, address=address)
        raise InvalidClient()
    return client


# -- grants --------------------------------------------------------------------------------------


async def grant_refresh_token(
    issuer: Issuer,
    *,
    refresh_token: str,
    scope: str | None,
    account: str | None,
    address: str,
    client_id: str | None = None,
) -> IssuedToken:
    """Exchange a refresh token for a new pair, which invalidates the old one (RFC 6749 §6).

    The new token is for the same account.

    Args:
        client_id: the public client that sends it; None for the first-party client.

    Raises:
        InvalidGrant: the token is unknown, expired, another client's, or was used before. All
            tokens of the sign-in are then revoked: the token must have been stolen (RFC 9700
            §4.14.2).
        InvalidScope: the scope exceeds that of the sign-in; the token stays valid.
        WrongAccount: `account` names another account; the token stays valid.
        TooManyRefreshes: as `issue_in_family`; the token stays valid.
    """
    family_id, secret = split_refresh_token(refresh_token)
    successor = secrets.token_urlsafe(32)
    async with issuer.database.transaction() as session:
        rotated = await repository.rotate_family(
            session,
            family_id=family_id,
            client_id=client_id,
            old_sha256=secret_digest(secret),
            new_sha256=secret_digest(successor),
            now=datetime.now(UTC),
        )
        family = await repository.find_family(session, family_id=family_id) if rotated else None
        user = await find_user(session, user_id=family.user_id) if family else None
        own = None
        if family and user and user.disabled_at is None:
            own = await find_account(session, user=user, account_id=family.organisation_id)
        if family and user and own:
            if account not in (None, own.id):
                raise WrongAccount()
            identity = " ".join(IDENTITY_SCOPES)
            granted = grant_scope(scope, allowed=_common(family.scope, f"{identity} {own.scope}"))
            return await issue_in_family(
                session, issuer, user, own, family, granted, f"{family_id}.{successor}"
            )
        lost = family or await repository.find_family(session, family_id=family_id)
        if lost is not None:
            reused = not rotated and lost.expires_at > datetime.now(UTC)
            mixed_up = lost.client_id != client_id
            action = "refresh_token_reused" if reused and not mixed_up else "refresh_token_rejected"
            await record(session, action, actor=None, target=lost.user_id, address=address)
            await end_family(session, family=lost)
        else:
            issuer.failures.note("refresh_token_rejected", address=address)
    raise InvalidGrant(_WRONG_REFRESH)


async def grant_client_credentials(
    issuer: Issuer, *, client: Client, scope: str | None, account: str | None
) -> IssuedToken:
    """Issue a token to a client, for its account or, for a service's client, for itself.

    The token expires no later than the client.

    Raises:
        InvalidGrant: the owner is disabled.
        InvalidScope: the client lacks a requested scope, or its owner no longer has it.
        WrongAccount: `account` names another account.
    """
    own_id = client.account_id or client.client_id
    if account not in (None, own_id):
        raise WrongAccount()
    if client.owner_id is None:
        granted = grant_scope(scope, allowed=client.scope)
        return _issue_to_client(issuer, client, granted, account=own_id)
    async with issuer.database.snapshot() as session:
        owner = await find_user(session, user_id=client.owner_id)
    if owner is None or owner.disabled_at is not None:
        raise InvalidGrant("The client's owner is disabled.")
    own_scope = scopes_of(PERSONAL, is_admin=owner.is_admin)
    granted = grant_scope(scope, allowed=_common(client.scope, own_scope))
    return _issue_to_client(issuer, client, granted, account=own_id)


async def delete_expired(database: Database) -> None:
    """Delete expired rows from the database."""
    now = datetime.now(UTC)
    async with database.transaction() as session:
        await repository.delete_expired(
            session,
            now=now,
            known_since=now - KNOWN_FOR,
            locked_since=now - LOCKS_REMEMBERED_FOR,
        )
        await delete_expired_revocations(session, now=now)
        await delete_expired_invitations(session, now=now)
        await delete_expired_keys(session, before=now - KEYS_SHOWN_FOR)


# -- helpers -------------------------------------------------------------------------------------


def _printable(client_id: str) -> str | None:
    """Return a client id that someone typed if it may be an id, so that it can be recorded."""
    plausible = client_id.isascii() and client_id.isprintable() and len(client_id) <= 64
    return client_id if plausible else None


async def create_family(
    session: AsyncSession, issuer: Issuer, user: LoginUser, account: Account, scope: str
) -> str:
    """Store a new refresh family of a user for an account, and return its first token."""
    _, refresh_token = await open_family(session, issuer, user, account, scope)
    return refresh_token


async def open_family(
    session: AsyncSession,
    issuer: Issuer,
    user: LoginUser,
    account: Account,
    scope: str,
    *,
    client_id: str | None = None,
) -> tuple[RefreshFamily, str]:
    """Store a user's new refresh family, perhaps at a public client; return its first token too."""
    secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
    family = RefreshFamily(
        id=str(uuid.uuid4()),
        user_id=user.id,
        organisation_id=None if account.id == user.id else account.id,
        client_id=client_id,
        secret_sha256=secret_digest(secret),
        scope=scope,
        created_at=now,
        expires_at=now + timedelta(seconds=issuer.settings.refresh_token_seconds),
    )
    await repository.add_family(session, family)
    return family, f"{family.id}.{secret}"


async def issue_in_family(
    session: AsyncSession,
    issuer: Issuer,
    user: User,
    account: Account,
    family: RefreshFamily,
    scope: str,
    refresh_token: str,
) -> IssuedToken:
    """Return a response with a token for the client of a refresh family.

    A public client's token is noted, so that it can be revoked with the family, of which the caller
    has locked the row.

    Raises:
        TooManyRefreshes: the client has `MAX_FAMILY_TOKENS` that are still valid.
    """
    if family.client_id is None:
        return issue_to_user(issuer, user, account, scope, refresh_token)
    now, token_id = datetime.now(UTC), str(uuid.uuid4())
    valid = await repository.list_family_tokens(session, family_id=family.id, now=now)
    if len(valid) >= MAX_FAMILY_TOKENS:
        wait = valid[0].expires_at - now
        raise TooManyRefreshes(retry_after_s=math.ceil(wait.total_seconds()))
    lifetime = timedelta(seconds=issuer.settings.access_token_seconds)
    noted = FamilyToken(token_id=token_id, family_id=family.id, expires_at=now + lifetime)
    await repository.add_family_token(session, noted)
    return issue_to_user(
        issuer, user, account, scope, refresh_token, client_id=family.client_id, token_id=token_id
    )


def grant_scope(scope: str | None, *, allowed: str) -> str:
    """Return the requested scopes, or by default all allowed ones, in the order of `SCOPES`.

    Raises:
        InvalidScope: a requested scope is not allowed, or none is allowed.
    """
    permitted = set(allowed.split())
    requested = set((scope or "").split()) or permitted
    if not requested or not requested <= permitted:
        raise InvalidScope()
    return " ".join(name for name in (*IDENTITY_SCOPES, *SCOPES) if name in requested)


def _common(scope: str, other: str) -> str:
    return " ".join(name for name in scope.split() if name in other.split())


def issue_to_user(
    issuer: Issuer,
    user: LoginUser,
    account: Account,
    scope: str,
    refresh_token: str | None,
    *,
    client_id: str = FIRST_PARTY,
    token_id: str | None = None,
) -> IssuedToken:
    """Return a response with a token for one of the user's accounts.

    Args:
        token_id: the `jti` of the token; default a new one.
    """
    claims = {"sub": account.id, "user_id": user.id, "client_id": client_id, "scope": scope}
    if token_id is not None:
        claims["jti"] = token_id
    lifetime_s = issuer.settings.access_token_seconds
    token = _sign(issuer, claims, lifetime_s=lifetime_s, not_before=account.tokens_from)
    return IssuedToken(token, lifetime_s, scope, refresh_token)


def _issue_to_client(issuer: Issuer, client: Client, scope: str, *, account: str) -> IssuedToken:
    """Return a response with a token that expires no later than the client.

    Raises:
        InvalidGrant: the client has expired.
    """
    lifetime_s = issuer.settings.access_token_seconds
    if client.expires_at is not None:
        lifetime_s = min(lifetime_s, int(client.expires_at.timestamp()) - int(time.time()))
    if lifetime_s < 1:
        raise InvalidGrant("The client has expired.")
    claims = {"sub": account, "client_id": client.client_id, "scope": scope}
    token = _sign(issuer, claims, lifetime_s=lifetime_s, not_before=client.tokens_from)
    return IssuedToken(token, lifetime_s, scope)


def _sign(
    issuer: Issuer, claims: dict[str, str], *, lifetime_s: int, not_before: datetime | None
) -> str:
    """Return a new access token (RFC 9068 §2.2).

    Args:
        not_before: tokens issued earlier are revoked. In the second of the revocation, a new token
            dates from the next one, which sets it apart from the revoked ones.
    """
    now = int(time.time())
    return issuer.keys.sign(
        {
            "iss": issuer.settings.issuer,
            "aud": AUDIENCE,
            "iat": max(now, int(not_before.timestamp())) if not_before else now,
            "exp": now + lifetime_s,
            "jti": str(uuid.uuid4()),
            **claims,
        }
    )
