"""Start workflows on GitHub within its rate limits.

repository_dispatch: https://docs.github.com/en/rest/repos/repos#create-a-repository-dispatch-event
waiting: https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from functions.common.faults import Unfinished
from functions.common.github_app import InstallationToken
from functions.common.settings import PipelineSettings

TIMEOUT_S = 10.0
BETWEEN_CALLS_S = 1.0
DEFAULT_WAIT_S = 60.0
"""The wait if GitHub limits the rate without saying for how long."""
MAX_WAIT_S = 3600.0
"""The longest accepted wait: GitHub's limits are reset each hour."""
MAX_RUN_PAGES = 5
CLOCK_SKEW = timedelta(minutes=5)
"""How far GitHub's clock may be behind the clock of `since`."""


class GitHubError(Unfinished):
    """GitHub did not accept the call.

    Args:
        status: status of the response, if there was one.
    """

    def __init__(self, message: str, *, status: int | None = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.status = status


class RateLimited(GitHubError):
    """GitHub limits the rate of calls. Nobody needs to act: the limit resets by itself."""


class GitHub:
    """A thread-safe client of one repository, with one call at a time."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._repository = settings.repository
        self._fixes = fixes(settings)
        self._token = settings.github_token
        self._app = None if settings.github_token else InstallationToken(settings)
        self._http = httpx.Client(
            base_url=settings.github_api_url,
            headers={
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
                "User-Agent": "tollgate",
            },
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        self._turn = threading.Lock()
        self._not_before = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def dispatch(
        self,
        event_type: str,
        payload: dict[str, str],
        *,
        deadline: float,
        check: Callable[[], None],
    ) -> None:
        """Send a repository_dispatch event.

        Args:
            deadline: time on the monotonic clock; a longer wait is left to a redelivery.
            check: called right before each attempt, after any wait; it raises to prevent the call.

        Raises:
            GitHubError: GitHub did not accept the event, or the outcome is unknown.
        """
        document = {"event_type": event_type, "client_payload": payload}
        path = f"/repos/{self._repository}/dispatches"
        self._call("POST", path, deadline=deadline, check=check, json=document)

    def has_run(self, title: str, *, since: datetime, deadline: float) -> bool:
        """Return whether an event after `since` started a run with this title.

        Raises:
            GitHubError: the runs could not be listed.
        """
        query = {"event": "repository_dispatch", "per_page": "100"}
        query["created"] = f">={(since - CLOCK_SKEW).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        path = f"/repos/{self._repository}/actions/runs"
        for page in range(1, MAX_RUN_PAGES + 1):
            params = {**query, "page": str(page)}
            response = self._call("GET", path, deadline=deadline, params=params)
            runs = response.json().get("workflow_runs", [])
            if any(run.get("display_title") == title for run in runs):
                return True
            if len(runs) < 100:
                break
        return False

    def _call(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        check: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> httpx.Response:
        """Call GitHub; if it requests a wait, retry after it as long as the deadline allows."""
        while True:
            with self._next_turn(deadline):
                check()
                response = self._send(method, path, **options)
                wait = requested_wait(response, now=time.time())
                self._not_before = time.monotonic() + max(wait or 0.0, BETWEEN_CALLS_S)
            if response.is_success:
                return response
            if wait is None:
                status, path = response.status_code, response.request.url.path
                message = f"GitHub responded {status} to {response.request.method} {path}."
                fix = self._fixes.get(status, "")
                raise GitHubError(message, status=status, fix=fix)

    @contextmanager
    def _next_turn(self, deadline: float) -> Iterator[None]:
        """Wait for this thread's turn to call, at most until the deadline."""
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise RateLimited("Too many calls are waiting for GitHub.")
        try:
            if self._not_before > deadline:
                seconds = round(self._not_before - time.monotonic())
                raise RateLimited(f"GitHub is rate limiting for another {seconds} s.")
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            yield
        finally:
            self._turn.release()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            headers = {"Authorization": f"Bearer {self._bearer()}"}
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.HTTPStatusError as error:  # the App got no token
            return error.response
        except httpx.HTTPError as error:
            raise GitHubError(f"GitHub: {type(error).__name__}.") from error
        if response.status_code == 401 and self._app is not None:
            self._app.forget()
        return response

    def _bearer(self) -> str:
        if self._token is not None:
            return self._token.get_secret_value()
        assert self._app is not None  # noqa: S101 — the constructor sets one of the two
        return self._app.get(self._http)


def fixes(settings: PipelineSettings) -> dict[int, str]:
    """Return the fix for each response status that a retry does not change."""
    repository = settings.repository
    app_fixes = {}
    if settings.github_token is not None:
        who, renew = "the token", "Put a new token into the secret of PIPELINE_GITHUB_TOKEN."
        access = f"Correct PIPELINE_REPOSITORY, or give the token access to '{repository}'."
    else:
        who = "the GitHub App"
        renew = "Check PIPELINE_GITHUB_APP_ID and PIPELINE_GITHUB_PRIVATE_KEY."
        access = (
            f"Install the GitHub App on '{repository}', and check PIPELINE_GITHUB_INSTALLATION_ID."
        )
        app_fixes = {422: access}
    moved = f"Repository '{repository}' has moved; correct PIPELINE_REPOSITORY."
    return {
        301: moved,
        307: moved,
        308: moved,
        401: f"GitHub rejects {who}: it has expired or was revoked. {renew}",
        403: f"Give {who} the permission 'contents: write' on '{repository}'.",
        404: access,
        410: f"Repository '{repository}' no longer exists; correct PIPELINE_REPOSITORY.",
        **app_fixes,
    }


def requested_wait(response: httpx.Response, *, now: float) -> float | None:
    """Return the seconds that GitHub requests to wait; None if the response is not a rate limit.

    Args:
        now: seconds since 1970.
    """
    if response.status_code not in (403, 429):
        return None
    if (retry_after := response.headers.get("retry-after", "")).isdecimal():
        return min(float(retry_after), MAX_WAIT_S)
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        return min(max(0.0, float(reset) - now), MAX_WAIT_S)
    if response.status_code == 429 or "rate limit" in response.text.lower():
        return DEFAULT_WAIT_S
    return None
