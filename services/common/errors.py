"""The errors that clients see, as RFC 9457 problem+json.

    ServiceError            an expected failure; its subclass lives in the slice that raises it
    ├── BadRequest          400
    ├── Unauthenticated     401, with the RFC 6750 challenge
    ├── InsufficientScope   403, with the RFC 6750 challenge
    ├── NotFound            404
    ├── BodyInvalid         422, one entry per offending field
    └── Unavailable         503, with Retry-After

`code` is the contract (it becomes the problem's `type`); class names are free to change.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from services.common.validation import explain

PROBLEM_JSON = "application/problem+json"
MAX_FIELD_ERRORS = 50


_PROBLEM = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg"],
                "properties": {"loc": {"type": "array", "items": {}}, "msg": {"type": "string"}},
            },
        },
    },
}
"""An error's JSON schema."""


class ServiceError(Exception):
    """An expected failure: an HTTP status, a stable code and one sentence for the client.

    Args:
        detail: the sentence; it must not contain secrets, paths, SQL or input.
        headers: response headers to add, such as `Retry-After`.
        extra: further members of the problem document.
    """

    status: int = 500
    code: str = "internal_error"
    detail: str = "The request could not be completed."
    media_type: str = PROBLEM_JSON
    schema: Mapping[str, Any] = _PROBLEM

    def __init__(
        self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        self.detail = detail or self.detail
        self.headers = dict(headers or {})
        self.extra = extra
        super().__init__(self.detail)

    def body(self, *, path: str, request_id: str) -> dict[str, Any]:
        """Return the response document; protocols with their own error format override it."""
        return problem(
            self.status, self.code, self.detail, path=path, request_id=request_id, **self.extra
        )


class BadRequest(ServiceError):
    """The request is malformed."""

    status = 400
    code = "bad_request"


class Unauthenticated(ServiceError):
    """Missing or invalid credentials. The failed check is deliberately not disclosed."""

    status = 401
    code = "invalid_token"
    detail = "Valid credentials are required."

    def __init__(self, *, token_given: bool = True) -> None:
        self.token_given = token_given
        challenge = 'Bearer error="invalid_token"' if token_given else "Bearer"
        super().__init__(headers={"WWW-Authenticate": challenge})


class InsufficientScope(ServiceError):
    """The token lacks the required scope."""

    status = 403
    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(f"Scope '{scope}' is required.", headers={"WWW-Authenticate": challenge})


class NotFound(ServiceError):
    """The resource does not exist or belongs to another account."""

    status = 404
    code = "not_found"
    detail = "Not found."


class BodyInvalid(ServiceError):
    """The input is invalid; `errors` are `{"loc", "msg"}` and never repeat the input."""

    status = 422
    code = "invalid_input"

    def __init__(self, errors: Sequence[Mapping[str, Any]], detail: str | None = None) -> None:
        super().__init__(
            detail or "Request validation failed; see `errors`.",
            errors=list(errors[:MAX_FIELD_ERRORS]),
        )


class BodyTooLarge(ServiceError):
    """The body exceeds the size limit."""

    status = 413
    code = "body_too_large"
    detail = "The body is too large."


class Unavailable(ServiceError):
    """A dependency is temporarily unavailable; retry later."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


STOPPING = Unavailable("The service is stopping.")
"""The response to a request that a stopping service cannot finish."""


def problem(
    status: int, code: str, detail: str, *, path: str, request_id: str, **extra: Any
) -> dict[str, Any]:
    """Return an RFC 9457 problem document."""
    return {
        "type": problem_type(code),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "request_id": request_id,
        **extra,
    }


def problem_type(code: str) -> str:
    """Return the `type` of the problem documents with this code."""
    return f"urn:tollgate:problem:{code}"


def error_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that raises these errors."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        description = (error.__doc__ or error.code).strip().splitlines()[0]
        entry = responses.setdefault(
            error.status,
            {"description": description, "content": {error.media_type: {"schema": error.schema}}},
        )
        if description not in entry["description"]:
            entry["description"] += f" Or: {description}"
    return responses


class Refuse(Protocol):
    """Turns an error into an HTTP response."""

    def __call__(self, error: ServiceError, *, path: str, request_id: str) -> Response: ...


def error_response(error: ServiceError, *, path: str, request_id: str) -> Response:
    """Return the HTTP response for an error, in the error's own format."""
    return Response(
        orjson.dumps(error.body(path=path, request_id=request_id)),
        status_code=error.status,
        headers=error.headers,
        media_type=error.media_type,
    )


Observe = Callable[[Request, ServiceError], None]
"""Is called with a request that ends in an expected error."""


def install_error_handlers(app: FastAPI, refuse: Refuse, observe: Observe | None = None) -> None:
    """Turn every expected exception of `app` into an error response."""

    def respond(request: Request, error: ServiceError) -> Response:
        if observe is not None:
            observe(request, error)
        request_id = request.scope.get("state", {}).get("request_id", "")
        return refuse(error, path=request.scope["path"], request_id=request_id)

    @app.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        return respond(request, error)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        return respond(request, from_http(error))

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return respond(request, _from_validation(error))


_CODES = {413: BodyTooLarge.code}
"""Codes that do not follow from the status's name, which differs between versions of Python."""


def from_http(error: HTTPException) -> ServiceError:
    """Convert a framework error (unknown route, wrong method, body too large)."""
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail and error.status_code < 500 else f"{phrase}."
    converted = ServiceError(detail, headers=error.headers)
    converted.status = error.status_code
    converted.code = _CODES.get(error.status_code) or re.sub(r"[^a-z]+", "_", phrase.lower())
    return converted


def _from_validation(error: RequestValidationError) -> ServiceError:
    """Convert pydantic's errors, leaving out the input, its repr and the context."""
    entries = error.errors()
    inputs = [entry.get("input") for entry in entries]
    if unreadable := next((each for each in inputs if isinstance(each, UnreadableJson)), None):
        return unreadable.error
    return BodyInvalid(explain(entries, body=error.body))


class UnreadableJson:
    """Placeholder for an invalid JSON body until token, scope and resource have been checked.

    Args:
        error: the error to respond with afterwards.
    """

    def __init__(self, error: ServiceError) -> None:
        self.error = error


class DuplicateMember(BadRequest):
    """A JSON object contains the same member twice."""

    code = "duplicate_member"
    detail = "A JSON object contains the same member twice."


def malformed_json() -> BodyInvalid:
    """Return the error for a body that is not JSON."""
    return BodyInvalid([{"loc": ["body"], "msg": "The body is not valid JSON."}])
