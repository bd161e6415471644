"""What stands round a function: GitHub's API, and a door to the storage that can be held shut."""

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

HELD_S = 20
REPOSITORY = "/repos/shop/models"


@dataclass
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def serving(answer: Callable[[Asked], Answer]) -> Iterator[str]:
    """A server on a free loopback port; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            given = answer(Asked(self.command, parts.path, query, headers, body))
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
            """Say nothing."""

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


class Held:
    """Something that waits at a door until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._go = threading.Event()

    def wait(self) -> None:
        self._arrived.set()
        self._go.wait(HELD_S)

    def arrived(self) -> None:
        """Return when it is waiting."""
        assert self._arrived.wait(HELD_S), "nothing came"

    def let_go(self) -> None:
        self._go.set()


class GitHub:
    """As much of GitHub's API as the functions use; it remembers all that it was asked.

    `runs` are the titles that the workflows' `run-name` gives; `hold_runs` makes the next look at
    them wait. `script` holds what happens to the
    next dispatches, one each: an answer; a Held, at which the call waits before it counts; or a
    pair of True and one of these, where it counts first.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.times: list[float] = []
        self.runs: list[str] = []
        self.dispatched: list[dict[str, Any]] = []
        self.script: list[Answer | Held | tuple[bool, Answer | Held]] = []
        self.runs_status = 200
        self.runs_body: bytes | None = None
        self.hold_runs: Held | None = None
        self.forgets_runs = False
        self.refusals: list[Answer] = []
        """What an App is told, one each, instead of being given a token."""
        self.token = "token-of-the-test"
        self.tokens_given = 0

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        self.times.append(time.monotonic())
        if asked.path.startswith("/app/installations/"):
            return self._give_token(asked)
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return Answer(401)
        if asked.path == f"{REPOSITORY}/actions/runs":
            held, self.hold_runs = self.hold_runs, None
            if held:
                held.wait()
            if self.runs_body is not None:
                return Answer(200, self.runs_body)
            titles = [] if self.forgets_runs else self.runs
            document = {"workflow_runs": [{"display_title": title} for title in titles]}
            return Answer(self.runs_status, json.dumps(document).encode())
        assert (asked.method, asked.path) == ("POST", f"{REPOSITORY}/dispatches")
        return self._dispatch(asked.json)

    def dispatches_of(self, model: str) -> list[dict[str, Any]]:
        """The payloads of the dispatches that count, for one model."""
        return [one for one in self.dispatched if one["client_payload"]["model"] == model]

    def calls_of(self, model: str) -> int:
        """How often a dispatch for a model was asked for, whether or not it counted."""
        return sum(asked.method == "POST" and model.encode() in asked.body for asked in self.asked)

    def _dispatch(self, document: dict[str, Any]) -> Answer:
        step = self.script.pop(0) if self.script else Answer()
        counts_first, step = step if isinstance(step, tuple) else (False, step)
        succeeds = isinstance(step, Answer) and step.status == 204
        if counts_first or succeeds:
            self._count(document)
        if isinstance(step, Held):
            step.wait()
            return Answer(504)
        return step

    def _count(self, document: dict[str, Any]) -> None:
        told = document["client_payload"]
        identity = f"{told['bucket']}/{told['name']}#{told['generation']}"
        self.dispatched.append(document)
        self.runs.append(f"{document['event_type']} {identity}")

    def _give_token(self, asked: Asked) -> Answer:
        if self.refusals:
            return self.refusals.pop(0)
        self.tokens_given += 1
        self.token = f"installation-token-{self.tokens_given}"
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return Answer(201, json.dumps({"token": self.token, "expires_at": ends}).encode())


class Door:
    """In front of the storage: `hold` makes the next call of a kind wait."""

    def __init__(self, upstream: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)
        self._holding: dict[str, Held] = {}
        self.down = False

    def hold(self, kind: str) -> Held:
        """The next record of that kind (claims, done, dead) waits, and is not written.

        The kind "o" is the next reading of an object, which then fails.
        """
        self._holding[kind] = Held()
        return self._holding[kind]

    def answer(self, asked: Asked) -> Answer:
        if self.down:
            return Answer(503)
        wanted = asked.path + asked.query.get("name", "")
        for kind in self._holding:
            if f"/{kind}/" in wanted:
                self._holding.pop(kind).wait()
                return Answer(503)
        passed = self._upstream.request(
            asked.method, asked.path, params=asked.query, content=asked.body
        )
        return Answer(passed.status_code, passed.content, {"Content-Type": "application/json"})

    def close(self) -> None:
        self._upstream.close()
