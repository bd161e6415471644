"""Calls to auth: who is behind an API key, what has been revoked, and what was rejected?"""

import asyncio
from typing import Any

import httpx
import orjson
import structlog
from pydantic import SecretStr

from services.common.contracts import KeyIntrospection, RejectionReport, RevocationPage
from services.common.errors import Unavailable
from services.common.identity.client_token import ClientToken, NoToken
from services.common.identity.key_verifier import KEYS_UNAVAILABLE

_REVOCATIONS_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
"""Longer than auth waits for a revocation."""

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
        self._revocations_url = f"{auth_url}/revocations"
        self._rejections_url = f"{auth_url}/rejections"
        self._client = (client_id, client_secret.get_secret_value())
        self._token = ClientToken(
            http, auth_url=auth_url, client_id=client_id, client_secret=client_secret
        )

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
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("introspection_failed", reason=_reason(error))
            raise Unavailable(KEYS_UNAVAILABLE) from error

    async def list_revocations(self, *, after: int) -> RevocationPage:
        """Return the revocations after a number; auth waits for one for a few seconds.

        Only the end of the process cancels this call, so it is not shielded.

        Raises:
            Unavailable: auth does not answer.
        """
        try:
            headers = {"Authorization": f"Bearer {await self._token.get()}"}
            response = await self._http.get(
                self._revocations_url,
                params={"after": after},
                headers=headers,
                timeout=_REVOCATIONS_TIMEOUT,
            )
            if response.status_code == 401:
                self._token.drop()
            response.raise_for_status()
            return RevocationPage.model_validate_json(response.content)
        except NoToken as error:
            raise Unavailable(f"{error}.") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(f"{_reason(error)}.") from error

    async def report_rejections(self, report: RejectionReport) -> None:
        """Report credentials that this service has rejected.

        Only the end of the process cancels this call, so it is not shielded.

        Raises:
            Unavailable: auth does not accept the report.
        """
        try:
            headers = {
                "Authorization": f"Bearer {await self._token.get()}",
                "Content-Type": "application/json",
            }
            content = report.model_dump_json().encode()
            response = await self._http.post(self._rejections_url, content=content, headers=headers)
            if response.status_code == 401:
                self._token.drop()
            response.raise_for_status()
        except NoToken as error:
            raise Unavailable(f"{error}.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Return why a call failed, without its URL or content."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"auth answered {error.response.status_code}"
    return type(error).__name__
