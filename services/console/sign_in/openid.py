"""The console as an OpenID Connect client: authorization code with PKCE, state and nonce."""

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from jose import JWTError, jwt

from services.common.identity.issuer_keys import ALGORITHM
from services.console.apis.auth import Tokens
from services.console.sessions.sealing import Sealer
from services.console.sessions.visitors import Session, new_secret

SCOPE = "openid predict usage:read keys:write billing:manage members:write admin"
"""All that a person may have; auth grants each person only their own scopes of it."""
FLOW_SECONDS = 3600
"""How long someone may take to sign in."""
RENEW_AFTER = 0.5
"""The share of a token's lifetime after which a visitor who navigates gets a new one. A form that
is shown after that is valid for at least the rest."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A sign-in that has begun; sealed, it is the `state` of the authorization request."""

    verifier: str
    nonce: str
    browser: str
    """A digest of the secret in the browser's cookie, which the answer must come from."""
    return_to: str
    silent: bool
    """Whether auth must not show a page."""
    account: str | None = None


def begin(*, browser: str, return_to: str, silent: bool, account: str | None = None) -> Flow:
    """Return a new sign-in for a browser.

    Args:
        account: the account to be signed in for; None for the personal one.
    """
    return Flow(new_secret(), new_secret(), _digest(browser), return_to, silent, account)


def seal_flow(flow: Flow, sealer: Sealer) -> str:
    """Return a sign-in as `state`."""
    return sealer.seal(asdict(flow), purpose="flow")


def open_flow(state: str, *, browser: str | None, sealer: Sealer) -> Flow | None:
    """Return the sign-in in a `state`; None if this browser did not begin it, or too long ago."""
    document = sealer.unseal(state, purpose="flow", max_age_s=FLOW_SECONDS)
    try:
        flow = Flow(**document) if document else None
    except TypeError:  # of another release
        return None
    return flow if flow and browser and flow.browser == _digest(browser) else None


def authorization_query(
    flow: Flow,
    *,
    state: str,
    client_id: str,
    redirect_uri: str,
    login_hint: str | None = None,
    id_token: str | None = None,
) -> str:
    """Return the query of the authorization request.

    Args:
        login_hint: the e-mail address to fill in.
        id_token: of the session so far: nobody but its user may be signed in silently.
    """
    challenge = _digest(flow.verifier)
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": SCOPE,
        "state": state,
        "nonce": flow.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "prompt": "none" if flow.silent else None,
        "account": flow.account,
        "login_hint": login_hint,
        "id_token_hint": id_token if flow.silent else None,
    }
    return urlencode({name: value for name, value in parameters.items() if value})


def check_id_token(
    tokens: Tokens, *, keys: Mapping[str, Any], issuer: str, client_id: str, nonce: str
) -> str:
    """Return the user whom an ID token identifies (OpenID Connect Core §3.1.3.7).

    Raises:
        ValueError: it is missing or invalid.
    """
    try:
        claims = jwt.decode(
            tokens.id_token or "",
            keys,
            algorithms=[ALGORITHM],
            audience=client_id,
            issuer=issuer,
            access_token=tokens.access_token,
            options={"require_exp": True, "require_iat": True, "require_sub": True, "leeway": 60},
        )
    except (JWTError, ValueError, TypeError, KeyError) as error:
        raise ValueError("the ID token is invalid") from error
    if claims.get("nonce") != nonce:
        raise ValueError("the ID token belongs to another sign-in")
    return str(claims["sub"])


def new_session(
    tokens: Tokens, *, user: Mapping[str, Any], account_name: str | None, role: str
) -> Session:
    """Return the session of someone who has just signed in or registered.

    Args:
        user: as auth describes them.
        account_name: that of the organisation, if the token is for one.
    """
    now = int(time.time())
    lifetime = tokens.expires_in
    return Session(
        id=new_secret(),
        user_id=user["id"],
        email=user["email"],
        account=jwt.get_unverified_claims(tokens.access_token)["sub"],
        account_name=account_name,
        role=role,
        scopes=tuple(tokens.scope.split()),
        token=tokens.access_token,
        expires_at=now + lifetime,
        # Without a sign-in at auth, only the visitor can get a new token.
        renew_at=now + (int(lifetime * RENEW_AFTER) if tokens.id_token else lifetime),
        id_token=tokens.id_token,
    )


def continued(new: Session, *, former: Session | None) -> Session:
    """Return a session with the id of the former one if it is the same user's.

    Forms that are open in other tabs stay valid then.
    """
    same = former is not None and (former.user_id, former.account) == (new.user_id, new.account)
    return replace(new, id=former.id) if former and same else new


def _digest(text: str) -> str:
    """Return the S256 challenge of a text (RFC 7636 §4.2)."""
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
