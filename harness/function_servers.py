"""The servers around a function: a fake GitHub API, and a storage proxy that can block calls."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

BLOCK_S = 20
REPOSITORY = "/repos/shop/models"


@dataclass
class Request:
    """A received request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Response:
    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def serving(answer: Callable[[Request], Response]) -> Iterator[str]:
    """Serve on a free loopback port; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            given = answer(Request(self.command, parts.path, query, headers, body))
            try:
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body)
            except OSError:  # the function was killed, or has given up
                self.close_connection = True

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Report what went wrong here; a client that hangs up is no fault."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class BlockedCall:
    """A call that is blocked until the test releases it."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._go = threading.Event()

    def wait(self) -> None:
        self._arrived.set()
        self._go.wait(BLOCK_S)

    def arrived(self) -> None:
        """Wait until the call is blocked."""
        assert self._arrived.wait(BLOCK_S), "no call arrived"

    def release(self) -> None:
        self._go.set()


class GitHub:
    """The part of GitHub's API that the functions use, with a record of all requests.

    `runs` are the titles from the workflows' `run-name`; `block_runs` blocks the next listing of
    them. `script` has the outcomes of the next dispatches: a response; a `BlockedCall`, which
    blocks the call before it counts; or a pair of True and one of these, where it counts first.
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
        self.requests.append(request)
        self.times.append(time.monotonic())
        if request.path.startswith("/app/installations/"):
            return self._give_token(request)
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
        return [one for one in self.dispatched if one["client_payload"]["model"] == model]

    def calls_of(self, model: str) -> int:
        """Return the number of dispatch calls for a model, accepted or not."""
        return sum(
            request.method == "POST" and model.encode() in request.body for request in self.requests
        )

    def _dispatch(self, document: dict[str, Any]) -> Response:
        step = self.script.pop(0) if self.script else Response()
        counts_first, step = step if isinstance(step, tuple) else (False, step)
        succeeds = isinstance(step, Response) and step.status == 204
        if counts_first or succeeds:
            self._count(document)
        if isinstance(step, BlockedCall):
            step.wait()
            return Response(504)
        return step

    def _count(self, document: dict[str, Any]) -> None:
        payload = document["client_payload"]
        identity = f"{payload['bucket']}/{payload['name']}#{payload['generation']}"
        self.dispatched.append(document)
        self.runs.append(f"{document['event_type']} {identity}")

    def _give_token(self, request: Request) -> Response:
        if self.refusals:
            return self.refusals.pop(0)
        self.tokens_given += 1
        self.token = f"installation-token-{self.tokens_given}"
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return Response(201, json.dumps({"token": self.token, "expires_at": ends}).encode())


class StorageProxy:
    """A proxy in front of the storage; `block` blocks the next call of a kind."""

    def __init__(self, upstream: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)
        self._blocking: dict[str, BlockedCall] = {}
        self.down = False

    def block(self, kind: str) -> BlockedCall:
        """Block the next record of a kind (claims, done, dead), which is then not written.

        The kind "o" is the next read of an object, which then fails.
        """
        self._blocking[kind] = BlockedCall()
        return self._blocking[kind]

    def answer(self, request: Request) -> Response:
        if self.down:
            return Response(503)
        wanted = request.path + request.query.get("name", "")
        for kind in self._blocking:
            if f"/{kind}/" in wanted:
                self._blocking.pop(kind).wait()
                return Response(503)
        passed = self._upstream.request(
            request.method, request.path, params=request.query, content=request.body
        )
        return Response(passed.status_code, passed.content, {"Content-Type": "application/json"})

    def close(self) -> None:
        self._upstream.close()
