"""Errors of the OAuth endpoints, in the shape of RFC 6749 §5.2."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from services.common.errors import ServiceError

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
    """The form is malformed, lacks a parameter or repeats one."""

    code = "invalid_request"


class InvalidClient(OAuthError):
    """The client's credentials do not hold."""

    status = 401
    code = "invalid_client"
    detail = "The client credentials do not hold."

    def __init__(self) -> None:
        # Every 401 has a challenge (RFC 9110 §15.5.2), also if the client came in the form.
        super().__init__(headers={"WWW-Authenticate": 'Basic realm="tollgate", charset="UTF-8"'})


class InvalidGrant(OAuthError):
    """The password or refresh token does not hold; why is not told."""

    code = "invalid_grant"


class UnauthorizedClient(OAuthError):
    """This client may not use this grant."""

    code = "unauthorized_client"


class UnsupportedGrantType(OAuthError):
    """The grant type is none of password, refresh_token and client_credentials."""

    code = "unsupported_grant_type"
    detail = "Supported are password, refresh_token and client_credentials."


class UnsupportedTokenType(OAuthError):
    """An access token cannot be revoked; it ends by itself (RFC 7009 §2.2.1)."""

    code = "unsupported_token_type"
    detail = "Only refresh tokens can be revoked; an access token ends by itself."


class InvalidScope(OAuthError):
    """More was asked for than may be granted."""

    code = "invalid_scope"
    detail = "More was asked for than may be granted."


class TooManyAttempts(OAuthError):
    """Too many failed log-ins for this e-mail or from this address, whatever the password."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(
            "Too many failed log-ins; try again later.",
            headers={"Retry-After": str(retry_after_s)},
        )


class TemporarilyUnavailable(OAuthError):
    """Something this needs is away or busy; asking again later may help."""

    status = 503
    code = "temporarily_unavailable"


@contextmanager
def oauth_errors() -> Iterator[None]:
    """Give every other expected error that leaves the block the shape of these endpoints."""
    try:
        yield
    except OAuthError:
        raise
    except ServiceError as error:
        raise _as_oauth(error.status, error.detail, error.headers) from error
    except HTTPException as error:
        raise _as_oauth(error.status_code, error.detail, error.headers) from error
    except OperationalError as error:  # it lost against another transaction
        raise _as_oauth(503, "The database is busy; retry in 1 s.", {"Retry-After": "1"}) from error


def _as_oauth(status: int, detail: str, headers: Mapping[str, str] | None) -> OAuthError:
    kind = TemporarilyUnavailable if status == 503 else InvalidRequest
    error = kind(detail, headers=headers)
    error.status = status
    return error
