"""Note the requests whose credentials were rejected before anything was known about them."""

from fastapi import Request

from services.auth.audit.failures import FailureLog
from services.auth.tokens.errors import MalformedClient
from services.common.errors import ServiceError, Unauthenticated

_ACTIONS: dict[type[ServiceError], str] = {
    Unauthenticated: "token_rejected",
    MalformedClient: "client_rejected",
}
_CREDENTIALS = {"authorization", "x-api-key"}


def note_rejected(request: Request, error: ServiceError) -> None:
    """Note a malformed, expired, revoked or foreign token or client.

    Ignore requests without credentials.
    """
    action = _ACTIONS.get(type(error))
    if action is None or not _CREDENTIALS & set(request.headers):
        return
    failures: FailureLog = request.app.state.failures
    failures.note(action, address=request.client.host if request.client else "")
