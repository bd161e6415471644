"""What routes need in order to record acts: the caller's address, and the log of failures."""

from typing import Annotated

from fastapi import Depends, Request

from services.auth.audit.failures import FailureLog


def client_address(request: Request) -> str:
    """Return the caller's IP address; behind a trusted proxy, the one that the proxy states."""
    return request.client.host if request.client else ""


def _failures(request: Request) -> FailureLog:
    failures: FailureLog = request.app.state.failures
    return failures


Address = Annotated[str, Depends(client_address)]
Failures = Annotated[FailureLog, Depends(_failures)]
