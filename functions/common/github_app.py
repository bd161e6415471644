"""Calling GitHub as an installed GitHub App, without a token that anybody has to renew.

https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

import time
from datetime import datetime

import httpx
from jose import jwt

from functions.common.settings import PipelineSettings

JWT_SECONDS = 540
"""GitHub allows 600; its clock may be ahead of ours."""
CLOCK_SKEW_S = 60
TOKEN_MARGIN_S = 300.0


class InstallationToken:
    """The installation's access token, for one repository, kept until shortly before it ends."""

    def __init__(self, settings: PipelineSettings) -> None:
        assert settings.github_private_key is not None  # noqa: S101 — by the settings' own check
        self._key = settings.github_private_key
        self._app_id = settings.github_app_id
        self._path = f"/app/installations/{settings.github_installation_id}/access_tokens"
        self._repository = settings.repository.partition("/")[2]
        self._token = ""
        self._ends = 0.0

    def get(self, http: httpx.Client) -> str:
        """A token that is good for another five minutes; not for several threads at once.

        Raises:
            httpx.HTTPError: GitHub does not give one.
        """
        if time.time() > self._ends - TOKEN_MARGIN_S:
            answer = http.post(
                self._path,
                headers={"Authorization": f"Bearer {self._proof()}"},
                json={"repositories": [self._repository]},
            ).raise_for_status()
            given = answer.json()
            self._token = given["token"]
            self._ends = datetime.fromisoformat(given["expires_at"]).timestamp()
        return self._token

    def forget(self) -> None:
        """Ask for a new one next time: the present one was refused."""
        self._ends = 0.0

    def _proof(self) -> str:
        """A JWT that says who we are, signed with the App's key."""
        now = int(time.time())
        claims = {"iat": now - CLOCK_SKEW_S, "exp": now + JWT_SECONDS, "iss": self._app_id}
        return str(jwt.encode(claims, self._key.get_secret_value(), algorithm="RS256"))
