"""Sign in at an OpenID provider from a command line (RFC 8628), and keep its tokens fresh."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from services.common.contracts import COMMAND_CLIENT

TIMEOUT_S = 10.0
EARLY_S = 60
"""A token that expires sooner than this is refreshed before it is used."""
SLOWER_S = 5
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class SignInError(Exception):
    """Signing in failed; the message is a sentence that says why."""


@dataclass(frozen=True)
class Tokens:
    """What a person's sign-in at an issuer gave."""

    access_token: str
    refresh_token: str
    expires_at: int
    """Seconds since the epoch, of the access token."""


@dataclass(frozen=True)
class Prompt:
    """What the person must do."""

    address: str
    code: str
    complete_address: str


def sign_in(
    http: httpx.Client,
    issuer: str,
    *,
    show: Callable[[Prompt], None],
    sleep: Callable[[float], None],
) -> Tokens:
    """Show a code to the person, wait until they approve it, and return the tokens.

    Args:
        sleep: waits for so many seconds.

    Raises:
        SignInError: it was denied, not approved in time, or the issuer is unavailable.
    """
    endpoints = find_endpoints(http, issuer)
    status, started = _post(
        http, endpoints, "device_authorization_endpoint", {"client_id": COMMAND_CLIENT}
    )
    if status != 200:
        raise SignInError(_reason(started))
    try:
        interval_s, left_s = float(started.get("interval", 5)), float(started["expires_in"])
        address, code = str(started["verification_uri"]), str(started["user_code"])
        device_code = str(started["device_code"])
    except (KeyError, TypeError, ValueError) as error:
        raise SignInError(f"{issuer} sent a malformed response.") from error
    show(Prompt(address, code, str(started.get("verification_uri_complete", address))))
    while left_s > 0:
        sleep(interval_s)
        left_s -= interval_s
        status, answer = _poll(http, endpoints, device_code)
        match answer.get("error"):
            case None if status == 200:
                return _tokens(answer)
            case "authorization_pending" | "unreachable":
                continue
            case "slow_down":
                interval_s += SLOWER_S
            case "access_denied":
                raise SignInError("You denied the request.")
            case _:
                raise SignInError(_reason(answer))
    raise SignInError("Nobody approved the code in time; run the command again.")


def refresh(http: httpx.Client, issuer: str, tokens: Tokens) -> Tokens:
    """Exchange the refresh token for new tokens, which uses it up.

    Raises:
        SignInError: it is no longer valid, or the issuer is unavailable.
    """
    form = {
        "grant_type": "refresh_token",
        "client_id": COMMAND_CLIENT,
        "refresh_token": tokens.refresh_token,
    }
    status, answer = _post(http, find_endpoints(http, issuer), "token_endpoint", form)
    if answer.get("error") == "invalid_grant":
        raise SignInError("Your sign-in has ended; run `tollgate login`.")
    if status != 200:
        raise SignInError(_reason(answer))
    return _tokens(answer)


def revoke(http: httpx.Client, issuer: str, tokens: Tokens) -> None:
    """Revoke the refresh token, and with it the access tokens.

    Raises:
        SignInError: the issuer is unavailable.
    """
    form = {"token": tokens.refresh_token, "client_id": COMMAND_CLIENT}
    status, answer = _post(http, find_endpoints(http, issuer), "revocation_endpoint", form)
    if status != 200:
        raise SignInError(_reason(answer))


def find_endpoints(http: httpx.Client, issuer: str) -> Mapping[str, Any]:
    """Return the discovery document of an issuer.

    Raises:
        SignInError: it is missing, or another issuer's.
    """
    try:
        answer = http.get(f"{issuer}/.well-known/openid-configuration")
        document = answer.raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise SignInError(f"No OpenID provider answers at {issuer}.") from error
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise SignInError(f"{issuer} is not the name by which this provider calls itself.")
    return document


def _poll(
    http: httpx.Client, endpoints: Mapping[str, Any], device_code: str
) -> tuple[int, Mapping[str, Any]]:
    form = {
        "grant_type": _DEVICE_GRANT,
        "client_id": COMMAND_CLIENT,
        "device_code": device_code,
    }
    try:
        return _post(http, endpoints, "token_endpoint", form)
    except SignInError:
        return 0, {"error": "unreachable"}  # it may be back before the code expires


def _post(
    http: httpx.Client, endpoints: Mapping[str, Any], name: str, form: Mapping[str, str]
) -> tuple[int, Mapping[str, Any]]:
    """Send a form to an endpoint; return the status and the JSON document, if there is one."""
    try:
        answer = http.post(str(endpoints[name]), data=dict(form))
        document = answer.json() if answer.content else {}
    except KeyError as error:
        raise SignInError(f"The provider has no {name}.") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise SignInError("The provider does not answer; try again later.") from error
    if answer.status_code >= 500 or not isinstance(document, dict):
        raise SignInError("The provider is unavailable; try again later.")
    return answer.status_code, document


def _tokens(answer: Mapping[str, Any]) -> Tokens:
    try:
        return Tokens(
            access_token=str(answer["access_token"]),
            refresh_token=str(answer["refresh_token"]),
            expires_at=int(time.time()) + int(answer["expires_in"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SignInError("The provider sent a malformed response.") from error


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error_description") or answer.get("error") or "The request failed.")
