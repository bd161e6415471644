"""The dependencies of routes that need a caller: credentials and scope."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase

from services.common.errors import InsufficientScope, Unauthenticated
from services.common.identity.api_keys import looks_like_api_key
from services.common.identity.caller import Caller
from services.common.identity.tokens import TokenVerifier, token_digest

SCOPES = {
    "predict": "Call models.",
    "usage:read": "Read your usage, balance and invoices.",
    "keys:write": "Manage API keys.",
    "billing:manage": "Manage caps, plans and payments.",
    "members:write": "Manage the members of an account.",
    "billing:write": "Report usage and request leases (services only).",
    "admin": "Administer accounts, plans and money.",
}
IDENTITY_SCOPES = {
    "openid": "Know who you are.",
    "email": "Read your e-mail address.",
    "profile": "Read your name.",
}
"""The scopes of OpenID Connect: what an app that people sign in to learns about them."""


_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_PUBLIC = "is_public"


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint needs no credentials; every other one has a `Guard`."""
    setattr(endpoint, _PUBLIC, True)
    return endpoint


def is_public(endpoint: Callable[..., Any]) -> bool:
    """Return whether an endpoint needs no credentials."""
    return getattr(endpoint, _PUBLIC, False)


def read_credentials(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the token or API key in a request's raw headers (RFC 6750 §2.1).

    Raises:
        Unauthenticated: there are no credentials, or more than one.
    """
    given = [(name, value) for name, value in headers if name in _CREDENTIALS]
    by_name = dict(given)
    if len(by_name) < len(given):
        raise Unauthenticated()
    return choose_credentials(by_name.get(b"authorization"), by_name.get(b"x-api-key"))


def choose_credentials(authorization: bytes | None, api_key: bytes | None) -> bytes:
    """Return the token or API key in the value of `Authorization` or of `X-API-Key`.

    Raises:
        Unauthenticated: there are no credentials, or both headers have some.
    """
    if authorization is None:
        if api_key is None:
            raise Unauthenticated(token_given=False)
        if not looks_like_api_key(api_key):
            raise Unauthenticated()
        return api_key
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token or api_key is not None:
        raise Unauthenticated()
    return token


async def authenticate(
    verifier: TokenVerifier, headers: list[tuple[bytes, bytes]], *, address: str
) -> Caller:
    """Return the caller of a request with these raw headers, who may call from this IP address.

    Rejected credentials are noted for the audit log; none at all are no attempt.

    Raises:
        Unauthenticated: the credentials are missing or invalid.
        AddressNotAllowed: the API key is limited to other addresses.
        Unavailable: the credentials cannot be checked right now.
    """
    try:
        credentials = read_credentials(headers)
        caller = verifier.recall(token_digest(credentials)) or await verifier.verify(credentials)
    except Unauthenticated as error:
        if error.token_given and verifier.rejections is not None:
            verifier.rejections.note(address)
        raise
    if caller.limits is not None:
        caller.limits.check_address(address)
    return caller


class Guard(ABC):
    """A dependency that rejects requests which may not use a route.

    `_GuardedRoute` calls it before the body is read.
    """

    scope: str | None = None
    """The scope that it requires."""

    @abstractmethod
    async def __call__(self, request: Request) -> Any:
        """Return what the route gets, or raise what the request is refused with."""


class RequireScope(Guard, SecurityBase):
    """A dependency that returns the `Caller` and rejects credentials without the scope."""

    def __init__(self, scope: str | None = None) -> None:
        self.scope = scope
        self.scheme_name = "account"
        self.model = OAuth2(  # the OpenAPI document adds the token URL
            flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="", scopes=SCOPES))
        )

    async def __call__(self, request: Request) -> Caller:
        verifier: TokenVerifier = request.app.state.verifier
        address = request.client.host if request.client else ""
        caller = await authenticate(verifier, request.scope["headers"], address=address)
        if self.scope is not None and self.scope not in caller.scopes:
            raise InsufficientScope(self.scope)
        return caller


AnyCaller = Annotated[Caller, Depends(RequireScope())]


class MayBeAnonymous(SecurityBase):
    """A dependency that returns the `Caller`, or None for a request without credentials."""

    def __init__(self) -> None:
        self._needs = RequireScope()
        self.scheme_name = self._needs.scheme_name
        self.model = self._needs.model

    async def __call__(self, request: Request) -> Caller | None:
        if "authorization" not in request.headers and "x-api-key" not in request.headers:
            return None
        return await self._needs(request)


OptionalCaller = Annotated[Caller | None, Depends(MayBeAnonymous())]
