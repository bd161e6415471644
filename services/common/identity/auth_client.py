"""Calls to auth: who is behind an API key?"""

import asyncio
from typing import Any

import httpx
import orjson
import structlog
from pydantic import SecretStr

from services.common.contracts import KeyIntrospection
from services.common.errors import Unavailable

KEYS_UNAVAILABLE = "API keys cannot be verified right now; retry in 1 s."

log = structlog.get_logger()


class AuthClient:
    """Calls auth with a service's own OAuth client.

    Args:
        http: owned by the lifespan, which closes it.
        auth_url: where auth is reached.
    """

    def __init__(
        self, http: httpx.AsyncClient, *, auth_url: str, client_id: str, client_secret: SecretStr
    ) -> None:
        self._http = http
        self._introspection_url = f"{auth_url}/introspect"
        self._client = (client_id, client_secret.get_secret_value())

    async def introspect_key(self, key: bytes) -> KeyIntrospection | None:
        """Return what auth knows about a well-formed API key, or None if it is not active.

        Raises:
            Unavailable: auth does not answer.
        """
        form = {"token": key.decode("ascii"), "token_type_hint": "api_key"}
        try:
            response = await asyncio.shield(
                self._http.post(self._introspection_url, data=form, auth=self._client)
            )
            response.raise_for_status()
            document: Any = orjson.loads(response.content)
            active = isinstance(document, dict) and document.get("active") is True
            return KeyIntrospection.model_validate(document) if active else None
        except (httpx.HTTPError, ValueError) as error:
            log.warning("introspection_failed", reason=_reason(error))
            raise Unavailable(KEYS_UNAVAILABLE) from error


def _reason(error: Exception) -> str:
    """Return why a call failed, without its URL or content."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"auth answered {error.response.status_code}"
    return type(error).__name__
