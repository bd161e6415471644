"""Authorization requests: read them, and decide what must happen next. No I/O."""

import enum
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qsl

from services.auth.openid.errors import AuthorizationError, RequestRejectedError
from services.common.identity.guards import IDENTITY_SCOPES, SCOPES

MAX_PARAMETERS = 40
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_STATE = re.compile(r"[\x20-\x7e]+")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
_UNSUPPORTED = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request: values by name, and the names that occur more than once."""

    values: Mapping[str, str]
    repeated: frozenset[str]

    def find_single(self, name: str) -> str | None:
        """Return the value of a parameter that occurs exactly once."""
        return None if name in self.repeated else self.values.get(name)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a client asks for."""

    scope: str
    """Its scopes, separated by spaces; the person may not have all of them."""
    challenge: str
    nonce: str | None
    prompts: frozenset[str]
    max_age: timedelta | None
    """How long ago the person may have signed in; None for any time."""
    login_hint: str
    id_token_hint: str | None
    account: str | None


class Step(enum.Enum):
    """What comes next."""

    SIGN_IN = "sign in"
    CONSENT = "consent"
    GRANT = "grant"


def read_parameters(query: str) -> Parameters:
    """Read a query; a parameter without a value counts as omitted (RFC 6749 §3.1).

    Raises:
        RequestRejectedError: it is malformed.
    """
    try:
        pairs = parse_qsl(query, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise RequestRejectedError("The address is malformed.") from error
    values = dict(pairs)
    names = [name for name, _ in pairs]
    return Parameters(values, frozenset(name for name in values if names.count(name) > 1))


def read_state(parameters: Parameters) -> str | None:
    """Return the state to send back to the client; None if it is missing or malformed."""
    state = parameters.find_single("state")
    return state if state is not None and _STATE.fullmatch(state) else None


def read_request(parameters: Parameters, *, client_scope: str) -> AuthorizationRequest:
    """Read what a client asks for, once its redirect URI is verified.

    Args:
        client_scope: the scopes that its tokens may have, besides those of OpenID Connect.

    Raises:
        AuthorizationError: the request is malformed, or asks for what is not offered.
    """
    if parameters.repeated:
        raise _invalid("A parameter is repeated.")
    values = parameters.values
    for name, code in _UNSUPPORTED.items():
        if name in values:
            raise AuthorizationError(code, f"The parameter {name} is not supported.")
    if "response_type" not in values:
        raise _invalid("The parameter response_type is required.")
    if values["response_type"] != "code":
        raise AuthorizationError("unsupported_response_type", "The response_type must be code.")
    if values.get("response_mode", "query") != "query":
        raise _invalid("The response_mode must be query.")
    if "state" in values and read_state(parameters) is None:
        raise _invalid("The state must be printable ASCII.")
    if not _CHALLENGE.fullmatch(values.get("code_challenge", "")):
        raise _invalid("A code_challenge of 43 characters is required.")
    if values.get("code_challenge_method") != "S256":
        raise _invalid("The code_challenge_method must be S256.")
    if "nonce" in values and not _PRINTABLE.fullmatch(values["nonce"]):
        raise _invalid("The nonce must be printable ASCII of at most 255 characters.")
    return AuthorizationRequest(
        scope=choose_scope(values.get("scope"), client_scope=client_scope),
        challenge=values["code_challenge"],
        nonce=values.get("nonce"),
        prompts=_read_prompts(values.get("prompt", "")),
        max_age=_read_max_age(values.get("max_age")),
        login_hint=values.get("login_hint", "")[:254],
        id_token_hint=values.get("id_token_hint"),
        account=values.get("account"),
    )


def choose_scope(requested: str | None, *, client_scope: str) -> str:
    """Return the scopes that a client asks for; by default those that it is registered with.

    Unknown ones are ignored (OpenID Connect Core §3.1.2.1).

    Raises:
        AuthorizationError: it is not registered with one of them, or all are unknown.
    """
    registered = set(client_scope.split())
    known = {*IDENTITY_SCOPES, *SCOPES}
    wanted = registered if requested is None else known & set(requested.split())
    if not wanted or not wanted <= registered | set(IDENTITY_SCOPES):
        raise AuthorizationError("invalid_scope", "The scope exceeds what the client may request.")
    return in_order(wanted)


def limit_scope(scope: str, *, allowed: str) -> str:
    """Return the scopes that a person may have, who may lack some that the client asks for.

    Raises:
        AuthorizationError: no scope is left.
    """
    granted = set(scope.split()) & {*IDENTITY_SCOPES, *allowed.split()}
    if not granted:
        raise AuthorizationError("invalid_scope", "The user may not have any of these scopes.")
    return in_order(granted)


def in_order(scopes: Set[str]) -> str:
    """Return scopes separated by spaces, in one order."""
    return " ".join(name for name in (*IDENTITY_SCOPES, *SCOPES) if name in scopes)


def next_step(
    request: AuthorizationRequest,
    *,
    authenticated_at: datetime | None,
    is_hinted: bool,
    consented: bool,
    now: datetime,
) -> Step:
    """Return what must happen next.

    Args:
        authenticated_at: when the person in the browser signed in; None if nobody is signed in.
        is_hinted: whether it is the person whom `id_token_hint` names, if the request has one.
        consented: whether this person need not be asked for consent.

    Raises:
        AuthorizationError: something must be shown, but the client wants no page.
    """
    silent = "none" in request.prompts
    too_old = (
        authenticated_at is not None
        and request.max_age is not None
        and now - authenticated_at > request.max_age
    )
    again = bool(request.prompts & {"login", "select_account"})
    if authenticated_at is None or too_old or again or not is_hinted:
        if silent:
            raise AuthorizationError("login_required", "The user must sign in.")
        return Step.SIGN_IN
    if not consented or "consent" in request.prompts:
        if silent:
            raise AuthorizationError("consent_required", "The user must consent.")
        return Step.CONSENT
    return Step.GRANT


def _read_prompts(prompt: str) -> frozenset[str]:
    prompts = frozenset(prompt.split())
    if not prompts <= _PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise _invalid("The prompt must be none, or of login, consent and select_account.")
    return prompts


def _read_max_age(max_age: str | None) -> timedelta | None:
    if max_age is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", max_age):
        raise _invalid("The max_age must be a number of seconds.")
    return timedelta(seconds=int(max_age))


def _invalid(description: str) -> AuthorizationError:
    return AuthorizationError("invalid_request", description)
