"""Talk to the providers that people sign in with: discovery, tokens, keys (OpenID Connect)."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import httpx

from services.auth.providers.id_tokens import IdTokenInvalid, has_key, verify_id_token
from services.auth.settings import ProviderSettings

METADATA_MAX_AGE_S = 3600.0
KEYS_COOLDOWN_S = 30.0
"""How often an unknown key id may cause another fetch."""


class ProviderError(Exception):
    """The provider is unavailable, or answers wrongly; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a provider vouches for."""

    issuer: str
    subject: str
    email: str | None
    """None unless the provider has verified it."""
    name: str | None


@dataclass(slots=True)
class _Cached:
    metadata: Mapping[str, Any] = field(default_factory=dict)
    metadata_until: float = float("-inf")
    keys: Sequence[Mapping[str, Any]] = ()
    keys_from: float = float("-inf")


class ProviderClient:
    """Owns what is known about the configured providers.

    Args:
        http: a client without redirects; closed by the caller.
        callback: where providers send people back, without the provider's name.
    """

    def __init__(
        self, http: httpx.AsyncClient, providers: Sequence[ProviderSettings], *, callback: str
    ) -> None:
        self._http = http
        self._callback = callback
        self._providers = {each.name: each for each in providers}
        self._cached = {each.name: _Cached() for each in providers}

    @property
    def names(self) -> list[str]:
        """The configured providers, in order."""
        return list(self._providers)

    async def authorization_url(self, name: str, *, state: str, nonce: str, challenge: str) -> str:
        """Return where to send a browser to sign in.

        Raises:
            ProviderError: the provider is unavailable.
        """
        metadata = await self._metadata(name)
        query = {
            "response_type": "code",
            "client_id": self._providers[name].client_id,
            "redirect_uri": self._redirect_uri(name),
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = str(metadata["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def check_issuer(self, name: str, issuer: str | None) -> None:
        """Check who says that it sends a response (RFC 9207), against mixed-up providers.

        Raises:
            ProviderError: it is another provider, or the provider does not say it but should.
        """
        required = (await self._metadata(name)).get(
            "authorization_response_iss_parameter_supported", False
        )
        if issuer != self._providers[name].issuer and (issuer is not None or required):
            raise ProviderError("the response names another issuer")

    async def exchange(self, name: str, *, code: str, nonce: str, verifier: str) -> Person:
        """Exchange a code for an ID token; return the person whom it is about.

        Raises:
            ProviderError: the provider is unavailable, refuses the code, or sends an ID token that
                must not be trusted.
        """
        provider, metadata = self._providers[name], await self._metadata(name)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri(name),
            "code_verifier": verifier,
        }
        secret = provider.client_secret.get_secret_value()
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth = None
        if "client_secret_basic" in methods:
            auth = (quote_plus(provider.client_id), quote_plus(secret))  # RFC 6749 §2.3.1
        else:
            form |= {"client_id": provider.client_id, "client_secret": secret}
        tokens = await self._call("POST", str(metadata["token_endpoint"]), data=form, auth=auth)
        token = str(tokens.get("id_token", ""))
        try:
            claims = verify_id_token(
                token,
                keys=await self._keys(name, token),
                issuer=provider.issuer,
                client_id=provider.client_id,
                nonce=nonce,
                now=time.time(),
            )
        except IdTokenInvalid as error:
            raise ProviderError(f"the ID token is not accepted: {error}") from error
        if "email" not in claims:
            claims |= await self._userinfo(metadata, tokens, subject=claims["sub"])
        return _person(provider.issuer, claims)

    async def _userinfo(
        self, metadata: Mapping[str, Any], tokens: Mapping[str, Any], *, subject: str
    ) -> Mapping[str, Any]:
        """Return what the userinfo endpoint says about the e-mail address and the name."""
        if "userinfo_endpoint" not in metadata:
            return {}
        headers = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
        info = await self._call("GET", str(metadata["userinfo_endpoint"]), headers=headers)
        if info.get("sub") != subject:
            raise ProviderError("the userinfo is about another person")
        return {name: info[name] for name in ("email", "email_verified", "name") if name in info}

    async def _metadata(self, name: str) -> Mapping[str, Any]:
        cached, provider = self._cached[name], self._providers[name]
        if time.monotonic() < cached.metadata_until:
            return cached.metadata
        url = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._call("GET", url)
        if found.get("issuer") != provider.issuer:
            raise ProviderError("the discovery document is another issuer's")
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        scheme = urlsplit(provider.issuer).scheme
        if any(
            urlsplit(str(found.get(each, ""))).scheme not in ("https", scheme) for each in names
        ):
            raise ProviderError("the discovery document lacks an endpoint, or one without TLS")
        cached.metadata, cached.metadata_until = found, time.monotonic() + METADATA_MAX_AGE_S
        return found

    async def _keys(self, name: str, token: str) -> Sequence[Mapping[str, Any]]:
        """Return the provider's keys; fetch them again if the token's is not among them."""
        cached = self._cached[name]
        age_s = time.monotonic() - cached.keys_from
        if age_s > METADATA_MAX_AGE_S or (
            age_s > KEYS_COOLDOWN_S and not has_key(cached.keys, token)
        ):
            found = await self._call("GET", str((await self._metadata(name))["jwks_uri"]))
            keys = found.get("keys")
            if not isinstance(keys, list) or not all(isinstance(each, dict) for each in keys):
                raise ProviderError("its keys are malformed")
            cached.keys, cached.keys_from = keys, time.monotonic()
        return cached.keys

    async def _call(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        try:
            answer = await asyncio.shield(self._http.request(method, url, **options))
            document = answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProviderError(f"a request failed ({type(error).__name__})") from error
        if not isinstance(document, dict):
            raise ProviderError("a response is not a JSON object")
        return document

    def _redirect_uri(self, name: str) -> str:
        return f"{self._callback}/{quote(name, safe='')}"


def _person(issuer: str, claims: Mapping[str, Any]) -> Person:
    email, name = claims.get("email"), claims.get("name")
    verified = claims.get("email_verified") is True and isinstance(email, str)
    return Person(
        issuer=issuer,
        subject=str(claims["sub"]),
        email=str(email) if verified else None,
        name=name[:100] if isinstance(name, str) and name.isprintable() else None,
    )
