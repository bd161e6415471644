"""Authenticate as an installed GitHub App, whose tokens need no manual renewal.

https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

import time
from datetime import datetime

import httpx
from jose import jwt

from functions.common.settings import PipelineSettings

JWT_SECONDS = 540
"""GitHub allows at most 600; its clock may be ahead of this machine's."""
CLOCK_SKEW_S = 60
TOKEN_MARGIN_S = 300.0


class InstallationToken:
    """The installation's access token for one repository, cached until shortly before expiry."""

    def __init__(self, settings: PipelineSettings) -> None:
        assert settings.github_private_key is not None  # noqa: S101 — the settings check it
        self._key = settings.github_private_key
        self._app_id = settings.github_app_id
        self._path = f"/app/installations/{settings.github_installation_id}/access_tokens"
        self._repository = settings.repository.partition("/")[2]
        self._token = ""
        self._expires_at = 0.0

    def get(self, http: httpx.Client) -> str:
        """Return a token that is valid for another five minutes. Not thread-safe.

        Raises:
            httpx.HTTPError: GitHub does not issue a token.
        """
        if time.time() > self._expires_at - TOKEN_MARGIN_S:
            response = http.post(
                self._path,
                headers={"Authorization": f"Bearer {self._proof()}"},
                json={"repositories": [self._repository]},
            ).raise_for_status()
            grant = response.json()
            self._token = grant["token"]
            self._expires_at = datetime.fromisoformat(grant["expires_at"]).timestamp()
        return self._token

    def forget(self) -> None:
        """Drop the cached token, because it was rejected."""
        self._expires_at = 0.0

    def _proof(self) -> str:
        """Return a JWT that identifies the App, signed with its key."""
        now = int(time.time())
        claims = {"iat": now - CLOCK_SKEW_S, "exp": now + JWT_SECONDS, "iss": self._app_id}
        return str(jwt.encode(claims, self._key.get_secret_value(), algorithm="RS256"))
