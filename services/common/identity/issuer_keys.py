"""The public keys that verify an issuer's tokens, from its JWKS (RFC 7517)."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx
from jose import jwk
from jose.backends.base import Key

from services.common.errors import Unavailable

ALGORITHM = "RS256"
MIN_RSA_BITS = 2048

_FIRST_PAUSE_S = 0.2
"""Seconds between attempts to fetch the first keys: services and their issuer start together."""


class KeySource(Protocol):
    """A source of verification keys: the issuer's JWKS, or auth's own key ring."""

    async def find(self, kid: str) -> Key | None:
        """Return the key with this id, or None.

        Raises:
            Unavailable: no keys are available.
        """
        ...


def public_key(document: Mapping[str, Any]) -> tuple[str, Key]:
    """Return the id and the key of a JWK.

    Raises:
        ValueError: not an RSA signing key of at least 2048 bits.
    """
    if document.get("kty") != "RSA" or document.get("use", "sig") != "sig":
        raise ValueError("not an RSA signing key")
    if document.get("alg", ALGORITHM) != ALGORITHM or not isinstance(document.get("kid"), str):
        raise ValueError(f"not a key for {ALGORITHM}")
    modulus = base64.urlsafe_b64decode(str(document["n"]) + "==")
    if len(modulus.lstrip(b"\0")) * 8 < MIN_RSA_BITS:
        raise ValueError("the key is too short")
    return document["kid"], jwk.construct(dict(document), ALGORITHM)


class IssuerKeys:
    """The keys that an issuer publishes (RFC 7517), cached in memory.

    They are fetched on first use and every `max_age_s`. An unknown `kid` triggers a fetch at most
    every `cooldown_s`, so that forged tokens cannot flood the issuer. While the issuer is
    unreachable, the cached keys stay in use, and an unknown key may be a new one: it is unavailable
    instead of wrong.

    Args:
        on_withdrawal: called when the issuer no longer publishes a key.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        issuer: str,
        *,
        cooldown_s: float = 30.0,
        max_age_s: float = 300.0,
        on_withdrawal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = f"{issuer}/.well-known/jwks.json"
        self._cooldown_s = cooldown_s
        self._max_age_s = max_age_s
        self.on_withdrawal = on_withdrawal
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._reached = False
        self._fetching = asyncio.Lock()

    async def find(self, kid: str) -> Key | None:
        key = self._keys.get(kid)
        age_s = self._clock() - self._fetched_at
        if key is None or age_s > self._max_age_s:
            await self.refresh()
            key = self._keys.get(kid)
        if key is None and not self._reached:
            raise Unavailable("The issuer's keys are unavailable; retry in 1 s.")
        return key

    async def refresh(self) -> None:
        """Fetch the key set unless that was tried just now; on failure, keep the cached keys."""
        async with self._fetching:
            pause_s = self._cooldown_s if self._keys else _FIRST_PAUSE_S
            if self._clock() - self._tried_at < pause_s:
                return
            self._tried_at, self._reached = self._clock(), False
            try:
                response = await asyncio.shield(self._client.get(self._url))
                response.raise_for_status()
                keys = dict(public_key(document) for document in response.json()["keys"])
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return
            withdrawn = self._keys.keys() - keys.keys()
            self._keys, self._fetched_at, self._reached = keys, self._clock(), True
            if withdrawn:
                self.on_withdrawal()

    async def check(self) -> str | None:
        """Return None once keys are available, otherwise a sentence; this is a readiness check."""
        if not self._keys:
            await self.refresh()
        return None if self._keys else "The issuer's keys have not been fetched."
