"""A fake GitHub API."""

import json
import time
from typing import Any

from harness.http_servers import BlockedCall, Request, Response

REPOSITORY = "/repos/shop/models"


class GitHub:
    """The part of GitHub's API that the functions use, with a record of all requests.

    `runs` are the titles from the workflows' `run-name`; `block_runs` blocks the next listing of
    them. `script` has the outcomes of the next dispatches: a response; a `BlockedCall`, which
    blocks the call before the dispatch is accepted; or a pair of True and one of these, if the
    dispatch is accepted first.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.runs: list[str] = []
        self.dispatched: list[dict[str, Any]] = []
        self.script: list[Response | BlockedCall | tuple[bool, Response | BlockedCall]] = []
        self.runs_status = 200
        self.runs_body: bytes | None = None
        self.block_runs: BlockedCall | None = None
        self.forgets_runs = False
        self.refusals: list[Response] = []
        """Responses to the next token requests of an App, instead of a token."""
        self.token = "token-of-the-test"
        self.tokens_given = 0

    def answer(self, request: Request) -> Response:
        """Respond to a request."""
        self.requests.append(request)
        self.times.append(time.monotonic())
        if request.path.startswith("/app/installations/"):
            return self._issue_token(request)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(401)
        if request.path == f"{REPOSITORY}/actions/runs":
            blocked, self.block_runs = self.block_runs, None
            if blocked:
                blocked.wait()
            if self.runs_body is not None:
                return Response(200, self.runs_body)
            titles = [] if self.forgets_runs else self.runs
            document = {"workflow_runs": [{"display_title": title} for title in titles]}
            return Response(self.runs_status, json.dumps(document).encode())
        assert (request.method, request.path) == ("POST", f"{REPOSITORY}/dispatches")
        return self._dispatch(request.json)

    def dispatches_of(self, model: str) -> list[dict[str, Any]]:
        """Return the accepted dispatches for one model."""
        return [each for each in self.dispatched if each["client_payload"]["model"] == model]

    def calls_of(self, model: str) -> int:
        """Return the number of dispatch calls for a model, accepted or not."""
        return sum(
            request.method == "POST" and model.encode() in request.body for request in self.requests
        )

    def _dispatch(self, document: dict[str, Any]) -> Response:
        step = self.script.pop(0) if self.script else Response()
        accepted_first, step = step if isinstance(step, tuple) else (False, step)
        succeeds = isinstance(step, Response) and step.status == 204
        if accepted_first or succeeds:
            self._accept(document)
        if isinstance(step, BlockedCall):
            step.wait()
            return Response(504)
        return step

    def _accept(self, document: dict[str, Any]) -> None:
        payload = document["client_payload"]
        identity = f"{payload['bucket']}/{payload['name']}#{payload['generation']}"
        self.dispatched.append(document)
        self.runs.append(f"{document['event_type']} {identity}")

    def _issue_token(self, request: Request) -> Response:
        if self.refusals:
            return self.refusals.pop(0)
        self.tokens_given += 1
        self.token = f"installation-token-{self.tokens_given}"
        expires_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return Response(201, json.dumps({"token": self.token, "expires_at": expires_at}).encode())
