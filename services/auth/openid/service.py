"""Authorize clients for people: authorization codes, and consents."""

import base64
import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.clients.credentials import find_client, is_usable_app, secret_digest
from services.auth.clients.redirects import is_loopback, is_registered, source_of
from services.auth.models import Client, User
from services.auth.openid import repository
from services.auth.openid.accounts import choose_account
from services.auth.openid.errors import AuthorizationError, RequestRejectedError
from services.auth.openid.grants import issue_to_app
from services.auth.openid.id_tokens import read_hint
from services.auth.openid.models import AuthorizationCode, Consent
from services.auth.openid.requests import (
    AuthorizationRequest,
    Parameters,
    Step,
    in_order,
    limit_scope,
    next_step,
    read_parameters,
    read_request,
    read_state,
)
from services.auth.openid.returns import AUTHORIZE, Return
from services.auth.organisations.memberships import Account, find_account, find_organisation
from services.auth.sessions.service import SignedIn, is_current, is_outdated, not_before
from services.auth.tokens.errors import InvalidGrant
from services.auth.tokens.logins import end_family, find_family
from services.auth.tokens.service import IssuedToken, Issuer
from services.auth.users.service import lock_user

CODE_LIFETIME = timedelta(seconds=60)
KEPT_FOR = timedelta(days=1)
"""How long after its end a code is still recognized, so that a replay revokes its tokens."""

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class Recipient:
    """A client with a verified redirect URI, and what its request says."""

    client: Client
    redirect_uri: str
    state: str | None
    parameters: Parameters

    @property
    def source(self) -> str:
        """The source of the redirect URI in a Content-Security-Policy."""
        return source_of(self.redirect_uri)

    def read(self) -> AuthorizationRequest:
        """Return what the client asks for.

        Raises:
            AuthorizationError: the request is malformed, or asks for what is not offered.
        """
        return read_request(self.parameters, client_scope=self.client.scope)


async def find_recipient(session: AsyncSession, *, query: str) -> Recipient:
    """Return where the response to an authorization request may go.

    Raises:
        RequestRejectedError: the client is unknown, or the redirect URI is not one of its own.
    """
    parameters = read_parameters(query)
    client_id = parameters.find_single("client_id")
    client = await find_client(session, client_id=client_id) if client_id else None
    if client is None or not await is_usable_app(session, client):
        raise RequestRejectedError("The app that sent you here is unknown.", client_id=client_id)
    redirect_uri = parameters.find_single("redirect_uri")
    if redirect_uri is None or not is_registered(redirect_uri, client.redirect_uris):
        text = "The app that sent you here did not name an address that it is registered with."
        raise RequestRejectedError(text, client_id=client_id)
    return Recipient(client, redirect_uri, read_state(parameters), parameters)


async def find_form_targets(issuer: Issuer, back: Return) -> list[str]:
    """Return where the forms of the pages before `back` may lead to in the end, besides auth."""
    if back.path != AUTHORIZE:
        return []
    try:
        async with issuer.database.snapshot() as session:
            return [(await find_recipient(session, query=back.query)).source]
    except RequestRejectedError:
        return []  # going back shows the error


@dataclass(frozen=True, slots=True)
class Prepared:
    """What comes next for a valid request and, if someone is signed in, what would be granted."""

    step: Step
    scope: str
    account: Account | None
    organisation: str | None = None
    """The name of the account if it is an organisation's: consent to that is not remembered."""


async def prepare(
    session: AsyncSession,
    issuer: Issuer,
    *,
    recipient: Recipient,
    request: AuthorizationRequest,
    signed_in: SignedIn | None,
) -> Prepared:
    """Return what must happen next for a request.

    Raises:
        AuthorizationError: the client must learn of an error.
    """
    client = recipient.client
    authenticated_at, account, scope, consented = None, None, request.scope, False
    organisation = None
    if signed_in is not None and signed_in.authenticated_at is not None:
        authenticated_at = signed_in.authenticated_at
        account = await choose_account(session, user=signed_in.user, account=request.account)
        scope = limit_scope(request.scope, allowed=account.scope)
        organisation = await find_organisation(session, organisation_id=account.id)
        # A loopback address proves nothing about the program behind it (RFC 8252 §8.6).
        consented = client.is_first_party or (
            organisation is None
            and not is_loopback(recipient.redirect_uri)
            and await _has_consented(session, user=signed_in.user, client=client, scope=scope)
        )
    step = next_step(
        request,
        authenticated_at=authenticated_at,
        is_hinted=await _is_hinted(issuer, request, signed_in),
        consented=consented,
        now=datetime.now(UTC),
    )
    return Prepared(step, scope, account, organisation.name if organisation else None)


async def create_code(
    session: AsyncSession,
    *,
    recipient: Recipient,
    request: AuthorizationRequest,
    signed_in: SignedIn,
    prepared: Prepared,
    address: str,
) -> str:
    """Return a code that the client can exchange for tokens once; only its digest is stored."""
    user, code = signed_in.user, secrets.token_urlsafe(32)
    now = not_before(prepared.account or user)
    row = AuthorizationCode(
        code_sha256=secret_digest(code),
        client_id=recipient.client.client_id,
        user_id=user.id,
        account_id=prepared.account.id if prepared.account else user.id,
        redirect_uri=recipient.redirect_uri,
        scope=prepared.scope,
        challenge=request.challenge,
        nonce=request.nonce,
        authenticated_at=signed_in.authenticated_at,
        created_at=now,
        expires_at=now + CODE_LIFETIME,
    )
    await repository.add_code(session, row)
    await record(session, "client_authorized", actor=user.id, target=row.client_id, address=address)
    return code


async def give_consent(session: AsyncSession, *, user: User, client: Client, scope: str) -> None:
    """Remember that a person allows a client these scopes, besides those allowed before."""
    earlier = await repository.find_consent(session, user_id=user.id, client_id=client.client_id)
    scopes = {*scope.split(), *(earlier.scope.split() if earlier else ())}
    await repository.store_consent(
        session,
        user_id=user.id,
        client_id=client.client_id,
        scope=in_order(scopes),
        now=datetime.now(UTC),
    )


async def list_consents_of(session: AsyncSession, *, user_id: str) -> Sequence[Consent]:
    """Return what a person has allowed clients, oldest first."""
    return await repository.list_consents(session, user_id=user_id)


class CodeState(enum.Enum):
    """What a code is worth."""

    VALID = "valid"
    USED = "used"
    INVALID = "invalid"


def judge_code(
    code: AuthorizationCode, *, client_id: str, redirect_uri: str, verifier: str, now: datetime
) -> CodeState:
    """Return whether a client may exchange a code now.

    A code that was used before is `USED` in anyone's hands: it has leaked.
    """
    if code.family_id is not None:
        return CodeState.USED
    bound = (
        code.client_id == client_id
        and code.redirect_uri == redirect_uri
        and _VERIFIER.fullmatch(verifier) is not None
        and hmac.compare_digest(_challenge(verifier), code.challenge)
    )
    return CodeState.VALID if bound and now < code.expires_at else CodeState.INVALID


async def grant_authorization_code(
    issuer: Issuer, *, client: Client, code: str, redirect_uri: str, verifier: str, address: str
) -> IssuedToken:
    """Exchange a code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.6).

    Raises:
        InvalidGrant: the code is unknown, expired, bound to something else, or was used before.
            Then the tokens that it was exchanged for are revoked (RFC 9700 §2.1.1).
    """
    async with issuer.database.transaction() as session:
        digest = secret_digest(code)
        owner_id = await repository.find_code_owner(session, code_sha256=digest)
        # The person comes first, so that nothing can revoke the tokens while they are issued.
        user = await lock_user(session, user_id=owner_id) if owner_id is not None else None
        row = await repository.lock_code(session, code_sha256=digest)
        state = CodeState.INVALID
        if row is not None:
            state = judge_code(
                row,
                client_id=client.client_id,
                redirect_uri=redirect_uri,
                verifier=verifier,
                now=datetime.now(UTC),
            )
        account = None
        if row and user and state is CodeState.VALID and is_current(user, row.created_at):
            account = await find_account(session, user=user, account_id=row.account_id)
        if row and user and account and not is_outdated(row.created_at, account.tokens_from):
            family, issued = await issue_to_app(
                session,
                issuer,
                user=user,
                account=account,
                client_id=client.client_id,
                scope=row.scope,
                authenticated_at=row.authenticated_at,
                nonce=row.nonce,
            )
            row.family_id = family.id
            return issued
        if row is not None and row.family_id is not None:
            await record(session, "code_reused", actor=None, target=row.user_id, address=address)
            family_of_code = await find_family(session, family_id=row.family_id)
            if family_of_code is not None:
                await end_family(session, family=family_of_code)
    if state is not CodeState.USED:
        issuer.failures.note("code_rejected", target=client.client_id, address=address)
    raise InvalidGrant("The code is invalid.")


async def delete_expired_codes(session: AsyncSession, *, now: datetime) -> None:
    """Delete codes whose replay no longer matters."""
    await repository.delete_codes(session, expired_before=now - KEPT_FOR)


async def _has_consented(session: AsyncSession, *, user: User, client: Client, scope: str) -> bool:
    consent = await repository.find_consent(session, user_id=user.id, client_id=client.client_id)
    return consent is not None and set(scope.split()) <= set(consent.scope.split())


async def _is_hinted(
    issuer: Issuer, request: AuthorizationRequest, signed_in: SignedIn | None
) -> bool:
    """Return whether the person in the browser is the one whom the request expects."""
    if request.id_token_hint is None:
        return True
    hint = await read_hint(issuer, token=request.id_token_hint)
    if hint is None:
        raise AuthorizationError("invalid_request", "The id_token_hint is invalid.")
    return signed_in is not None and signed_in.user.id == hint.user_id


def _challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
