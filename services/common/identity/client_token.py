"""The access token with which a service calls the others."""

import asyncio
import time
from collections.abc import Callable

import httpx
from pydantic import SecretStr, ValidationError

from services.common.contracts import TokenGrant
from services.common.identity.tokens import LEEWAY_S

SCOPE = "billing:write"
"""The scope of calls from service to service."""
_RENEW_BEFORE_S = LEEWAY_S + 60
"""A service rejects a token up to `LEEWAY_S` early if its clock is ahead of the issuer's."""


class NoToken(Exception):
    """The issuer granted no token; the message says why."""


class ClientToken:
    """A service's own token (client credentials grant, RFC 6749 §4.4), renewed before it expires.

    Args:
        http: owned by the lifespan, which closes it.
        auth_url: the issuer.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        auth_url: str,
        client_id: str,
        client_secret: SecretStr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = f"{auth_url}/token"
        self._client = (client_id, client_secret.get_secret_value())
        self._clock = clock
        self._token = ""
        self._valid_until = 0.0
        self._renewing = asyncio.Lock()

    async def get(self) -> str:
        """Return a valid token.

        Raises:
            NoToken: the issuer does not grant one.
        """
        async with self._renewing:
            if self._clock() >= self._valid_until:
                granted = await self._request()
                early_s = min(_RENEW_BEFORE_S, granted.expires_in / 2)
                self._token = granted.access_token
                self._valid_until = self._clock() + granted.expires_in - early_s
            return self._token

    def drop(self) -> None:
        """Request a new token next time, because this one was refused."""
        self._valid_until = 0.0

    async def _request(self) -> TokenGrant:
        form = {"grant_type": "client_credentials", "scope": SCOPE}
        try:
            response = await asyncio.shield(
                self._http.post(self._url, data=form, auth=self._client)
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoToken(f"no response: {type(error).__name__}") from error
        if not response.is_success:
            raise NoToken(f"the issuer answered {response.status_code}")
        try:
            return TokenGrant.model_validate_json(response.content)
        except ValidationError as error:
            raise NoToken("the response is invalid") from error
