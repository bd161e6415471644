"""A machine client for release checks: the configured one, or a temporary one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from cli.local import state
from cli.settings import LocalSettings

NAME = "release check"
LIFETIME = timedelta(hours=2)
"""A temporary client expires after this time, in case it cannot be deleted."""


class NoToken(Exception):
    """No access token is available; the message is a sentence that says why."""


@dataclass(frozen=True)
class Credentials:
    """The credentials of a machine client with scope `predict`."""

    client_id: str
    client_secret: str


class Auth:
    """The calls to auth that a check needs."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url.rstrip("/")

    @contextmanager
    def client(self, settings: LocalSettings) -> Iterator[Credentials]:
        """Yield the configured client, or a temporary one that is deleted after the block.

        Raises:
            NoToken: no client is configured, and none can be created.
        """
        if settings.client_id:
            secret = settings.client_secret.get_secret_value()
            yield Credentials(settings.client_id, secret)
            return
        email, password = self._sign_in(settings)
        form = {"grant_type": "password", "username": email, "password": password}
        token = self._call("POST", "/token", data=form)["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        ends = (datetime.now(UTC) + LIFETIME).isoformat(timespec="seconds")
        wanted = {"name": NAME, "scope": "predict", "expires_at": ends}
        made = self._call("POST", "/clients", json=wanted, headers=headers)
        try:
            yield Credentials(made["client_id"], made["client_secret"])
        finally:
            self._delete(f"/clients/{made['client_id']}", headers)

    def token(self, credentials: Credentials) -> str:
        """Return an access token with scope `predict`; raises NoToken."""
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
            "scope": "predict",
        }
        return str(self._call("POST", "/token", data=form)["access_token"])

    def _sign_in(self, settings: LocalSettings) -> tuple[str, str]:
        """Return the e-mail address and password of a user for release checks."""
        seed = settings.check_account_seed.get_secret_value()
        if not seed:
            if (settings.home / "credentials.json").exists():
                demo = state.credentials(settings.home)["demo"]
                return demo["email"], demo["password"]
            raise NoToken("Set TOLLGATE_CLIENT_ID and TOLLGATE_CLIENT_SECRET.")
        digest = hashlib.sha256(f"release check {seed}".encode()).hexdigest()
        email, password = f"release-check-{digest[:8]}@tollgate.example", digest[8:]
        self._call("POST", "/register", json={"email": email, "password": password}, taken=409)
        return email, password

    def _call(self, method: str, path: str, *, taken: int = 0, **options: Any) -> dict[str, Any]:
        """Return the JSON of a successful response; `taken` is another accepted status."""
        try:
            response = self._http.request(method, f"{self._url}{path}", **options)
            document: dict[str, Any] = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise NoToken(f"Auth is unavailable: {type(error).__name__}.") from error
        if not response.is_success and response.status_code != taken:
            raise NoToken(f"Auth responded {response.status_code} to {method} {path}.")
        return document

    def _delete(self, path: str, headers: dict[str, str]) -> None:
        """Delete a client; if that fails, it expires by itself."""
        try:
            self._http.delete(f"{self._url}{path}", headers=headers)
        except httpx.HTTPError:
            return
