"""The dependencies of routes that need a caller: bearer token and scope."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase

from services.common.errors import InsufficientScope, Unauthenticated
from services.common.identity.tokens import Caller, TokenVerifier

SCOPES = {
    "predict": "Call models.",
    "usage:read": "Read your usage, balance and invoices.",
    "billing:write": "Report usage and request leases (services only).",
    "admin": "Administer accounts, plans and money.",
}


def bearer_token(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the bearer token from a request's raw headers (RFC 6750 §2.1).

    Raises:
        Unauthenticated: there is no token, or more than one.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        raise Unauthenticated(token_given=False)
    if len(values) > 1:
        raise Unauthenticated()
    return read_bearer(values[0])


def read_bearer(authorization: bytes) -> bytes:
    """Return the bearer token in the value of an `Authorization` header.

    Raises:
        Unauthenticated: there is no such token.
    """
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise Unauthenticated()
    return token


class RequireScope(SecurityBase):
    """A dependency that returns the `Caller` and rejects tokens without the scope.

    `_GuardedRoute` calls it before the body is read.
    """

    def __init__(self, scope: str | None = None) -> None:
        self.scope = scope
        self.scheme_name = "account"
        self.model = OAuth2(  # the OpenAPI document adds the token URL
            flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="", scopes=SCOPES))
        )

    async def __call__(self, request: Request) -> Caller:
        verifier: TokenVerifier = request.app.state.verifier
        caller = await verifier.verify(bearer_token(request.scope["headers"]))
        if self.scope is not None and self.scope not in caller.scopes:
            raise InsufficientScope(self.scope)
        return caller


AnyCaller = Annotated[Caller, Depends(RequireScope())]


class MayBeAnonymous(SecurityBase):
    """A dependency that returns the `Caller`, or None for a request without a token."""

    def __init__(self) -> None:
        self._needs = RequireScope()
        self.scheme_name = self._needs.scheme_name
        self.model = self._needs.model

    async def __call__(self, request: Request) -> Caller | None:
        if "authorization" not in request.headers:
            return None
        return await self._needs(request)


OptionalCaller = Annotated[Caller | None, Depends(MayBeAnonymous())]
