"""Errors of the OAuth endpoints, in the format of RFC 6749 §5.2."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.common.errors import ServiceError, error_response

_ENDPOINTS = frozenset({"/token", "/revoke", "/introspect", "/device_authorization"})
_SCHEMA = {
    "title": "OAuthError",
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}


class OAuthError(ServiceError):
    """`code` is the `error` of RFC 6749 §5.2; `detail` is its description, without quotes."""

    status = 400
    media_type = "application/json"
    schema = _SCHEMA

    def __init__(
        self, detail: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail, headers={"Cache-Control": "no-store", **(headers or {})})

    def body(self, *, path: str, request_id: str) -> dict[str, Any]:
        return {"error": self.code, "error_description": self.detail}


class InvalidRequest(OAuthError):
    """The form is malformed, or a parameter is missing or repeated."""

    code = "invalid_request"


class InvalidClient(OAuthError):
    """The client credentials are invalid."""

    status = 401
    code = "invalid_client"
    detail = "The client credentials are invalid."

    def __init__(self) -> None:
        # Every 401 has a challenge (RFC 9110 §15.5.2), even if the credentials were in the form.
        super().__init__(headers={"WWW-Authenticate": 'Basic realm="tollgate", charset="UTF-8"'})


class MalformedClient(InvalidClient):
    """The client credentials are malformed."""


class InvalidGrant(OAuthError):
    """Invalid password or refresh token. The reason is deliberately not disclosed."""

    code = "invalid_grant"


class MfaRequired(OAuthError):
    """The password is right, but a code in the form field `totp` is required."""

    status = 403
    code = "mfa_required"
    detail = "Send a code from the authenticator app, or a recovery code, in `totp`."


class UnauthorizedClient(OAuthError):
    """This client may not use this grant."""

    code = "unauthorized_client"


class UnsupportedGrantType(OAuthError):
    """The grant type is not one of those in the discovery document."""

    code = "unsupported_grant_type"
    detail = "The grant type is not one of those in the discovery document."


class InvalidScope(OAuthError):
    """The requested scope exceeds what may be granted."""

    code = "invalid_scope"
    detail = "The requested scope exceeds what may be granted."


class WrongAccount(InvalidRequest):
    """The parameter `account` is not an account that these credentials can act for."""

    detail = "Parameter account must be an account that these credentials can act for."


class AuthorizationPending(OAuthError):
    """Nobody has approved the device yet."""

    code = "authorization_pending"
    detail = "Nobody has approved the device yet; try again after the interval."


class SlowDown(OAuthError):
    """The device polls too often; its interval is 5 s longer from now on."""

    code = "slow_down"
    detail = "The device polls too often; wait 5 s longer between requests."


class ExpiredToken(OAuthError):
    """Nobody approved the device in time."""

    code = "expired_token"
    detail = "Nobody approved the device in time; start again."


class AccessDenied(OAuthError):
    """The person denied the device access."""

    code = "access_denied"
    detail = "The person denied the device access."


class TooManyAttempts(OAuthError):
    """Too many failed sign-ins for this user or from this address; the password is not checked."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(
            "Too many failed sign-ins; try again later.",
            headers={"Retry-After": str(retry_after_s)},
        )


class TooManyRefreshes(OAuthError):
    """Too many access tokens of this sign-in are still valid; the refresh token stays valid."""

    status = 429
    code = "too_many_refreshes"
    detail = "Too many access tokens of this sign-in are still valid; refresh less often."

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after_s)})


class TemporarilyUnavailable(OAuthError):
    """A dependency is unavailable or busy; retry later."""

    status = 503
    code = "temporarily_unavailable"


def refuse(error: ServiceError, *, path: str, request_id: str) -> Response:
    """Return the response for an error, in OAuth format on the OAuth endpoints."""
    if path in _ENDPOINTS and not isinstance(error, OAuthError):
        error = _as_oauth(error.status, error.detail, error.headers)
    return error_response(error, path=path, request_id=request_id)


@contextmanager
def oauth_errors() -> Iterator[None]:
    """Convert every other expected error raised in the block to an OAuth error."""
    try:
        yield
    except OAuthError:
        raise
    except ServiceError as error:
        raise _as_oauth(error.status, error.detail, error.headers) from error
    except HTTPException as error:
        raise _as_oauth(error.status_code, error.detail, error.headers) from error


def _as_oauth(status: int, detail: str, headers: Mapping[str, str] | None) -> OAuthError:
    kind = TemporarilyUnavailable if status >= 500 else InvalidRequest
    error = kind(detail, headers=headers)
    error.status = status
    return error
