"""What routes need in order to record acts: the caller's address, and the log of failures."""

from typing import Annotated

from fastapi import Depends, Request

from services.auth.audit.failures import FailureLog


def client_address(request: Request) -> str:
    """Return the caller's IP address; behind a trusted proxy, the one that the proxy states."""
    return request.client.host if request.client else ""


# A dependency that is no coroutine would cost each request a hop to another thread.
async def _address(request: Request) -> str:
    return client_address(request)


async def _failures(request: Request) -> FailureLog:
    failures: FailureLog = request.app.state.failures
    return failures


Address = Annotated[str, Depends(_address)]
Failures = Annotated[FailureLog, Depends(_failures)]
