"""Revoke tokens (RFC 7009), and introspect tokens and API keys (RFC 7662)."""

from datetime import UTC, datetime
from typing import Any

from jose import jwt

from services.auth.api_keys.credentials import find_active_key, record_use
from services.auth.audit.service import record
from services.auth.callers import is_active
from services.auth.models import Client
from services.auth.revocations.service import is_token_revoked, publish
from services.auth.tokens.logins import end_login
from services.auth.tokens.service import Issuer
from services.common.contracts import KeyIntrospection
from services.common.errors import Unauthenticated
from services.common.identity.api_keys import looks_like_api_key


async def revoke(issuer: Issuer, *, token: str, address: str) -> None:
    """Revoke an access token, or all refresh tokens of a sign-in (RFC 7009).

    Unknown and expired tokens are ignored.
    """
    if token.count(".") == 2:
        await _revoke_access_token(issuer, token=token, address=address)
        return
    async with issuer.database.transaction() as session:
        await end_login(session, refresh_token=token, address=address)


async def _revoke_access_token(issuer: Issuer, *, token: str, address: str) -> None:
    try:
        caller = await issuer.verifier.verify(token.encode())
    except Unauthenticated:
        return
    if caller.token_id is None:
        return
    async with issuer.database.transaction() as session:
        if not await is_token_revoked(session, token_id=caller.token_id):
            await publish(
                session,
                ("jti", caller.token_id),
                issued_before=datetime.fromtimestamp(caller.issued_at + 1, UTC),
                until=datetime.fromtimestamp(caller.expires_at, UTC),
            )
            await record(
                session,
                "access_token_revoked",
                actor=caller.user_id or caller.client_id,
                target=caller.account,
                address=address,
            )


async def introspect(issuer: Issuer, *, token: str, client: Client) -> dict[str, Any]:
    """Return the claims of an access token or an API key if it is active (RFC 7662 §2.2).

    Refresh tokens are always reported as inactive. So are other accounts' tokens and keys if the
    client belongs to an account.
    """
    inactive = {"active": False}
    if looks_like_api_key(token.encode()):
        return await _introspect_key(issuer, key=token, client=client) or inactive
    try:
        caller = await issuer.verifier.verify(token.encode())
    except Unauthenticated:
        return inactive
    if client.account_id not in (None, caller.account):
        return inactive
    async with issuer.database.snapshot() as session:
        active = await is_active(session, caller=caller)
    if not active:
        return inactive
    return {"active": True, "token_type": "Bearer", **jwt.get_unverified_claims(token)}


async def _introspect_key(issuer: Issuer, *, key: str, client: Client) -> dict[str, Any] | None:
    """Return the claims of an API key, or None if it is not active.

    A service asks because the key is being used, so this is also recorded as a use.
    """
    async with issuer.database.transaction() as session:
        found = await find_active_key(session, key=key)
        if found is None or client.account_id not in (None, found.account_id):
            return None
        if client.account_id is None:
            await record_use(session, key=found)
    claims = KeyIntrospection(
        active=True,
        token_type="api_key",  # noqa: S106
        sub=found.account_id,
        client_id=found.id,
        scope=found.scope,
        iat=int(found.created_at.timestamp()),
        exp=int(found.expires_at.timestamp()) if found.expires_at else None,
        mode="test" if found.mode == "test" else "live",
        models=found.models,
        allowed_ips=found.allowed_ips,
    )
    return claims.model_dump(exclude_none=True)
