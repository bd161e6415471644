"""Discovery documents: clients find the endpoints and keys from the issuer's URL."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from services.auth.keys import KeyRing
from services.auth.tokens.router import GRANT_TYPES
from services.common.errors import Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import IDENTITY_SCOPES, SCOPES, public
from services.common.identity.issuer_keys import ALGORITHM

_CLIENT_AUTHENTICATION = ["client_secret_basic", "client_secret_post"]
_KEY_CACHING = {"Cache-Control": "public, max-age=300"}


def discovery_router(*, issuer: str, keys: KeyRing, providers: Sequence[str]) -> APIRouter:
    """Return the `/.well-known` routes of an issuer (RFC 8414, OpenID Connect Discovery 1.0).

    Args:
        providers: the names of those with which people may sign in, so that an app can offer them
            on its own pages; `identity_providers` is Tollgate's own.
    """
    router = new_router(prefix="/.well-known", tag="discovery")
    server: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": [*IDENTITY_SCOPES, *SCOPES],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "revocation_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "introspection_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
    }
    openid = server | {
        "userinfo_endpoint": f"{issuer}/userinfo",
        "end_session_endpoint": f"{issuer}/logout",
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": [
            *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash"),
            *("email", "email_verified", "name"),
        ],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "request_uri_parameter_supported": False,
    }
    if providers:
        openid["identity_providers"] = [*providers]

    @router.get("/oauth-authorization-server")
    @public
    async def authorization_server_metadata() -> dict[str, Any]:
        """Return the authorization server's metadata (RFC 8414)."""
        return server

    @router.get("/openid-configuration")
    @public
    async def openid_configuration() -> dict[str, Any]:
        """Return the metadata in the OpenID Connect format (Discovery 1.0)."""
        return openid

    @router.get("/jwks.json", responses=error_responses(Unavailable))
    @public
    async def jwks(response: Response) -> dict[str, Any]:
        """Return the keys that verify this issuer's tokens (RFC 7517)."""
        document = keys.document
        response.headers.update(_KEY_CACHING)
        return document

    return router
