"""`tollgate mcp`: the models as tools of an MCP client, over standard input and output.

Passes each message to `/mcp` of the inference service, which has all the rules, and its answer
back. https://modelcontextprotocol.io/specification/2025-06-18/basic/transports#stdio
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import Any

import httpx

from cli.discovery import find_service
from cli.output import exit_with_error
from cli.settings import LocalSettings

AT_ONCE = 8
"""Messages that are passed on at once; the client's next ones wait in the pipe."""
TIMEOUT_S = 60.0
ATTEMPTS = 3
_PAUSE_S = 0.2
"""Before the second attempt, doubled before each further one."""
UNREACHABLE = -32000
"""JSON-RPC's code for an error that a server defines."""

Write = Callable[[bytes], None]


def mcp() -> None:
    """Offer the models as tools to an MCP client that runs this command.

    The calls are billed to the account of TOLLGATE_API_KEY, like any prediction. TOLLGATE_URL is
    the URL of inference or of any other service; by default, of the local inference service.
    """
    settings = LocalSettings.load()
    key = settings.api_key.get_secret_value()
    if not key:
        exit_with_error("set TOLLGATE_API_KEY to an API key with scope `predict`")
    local = f"http://127.0.0.1:{settings.inference_port}"
    with httpx.Client(headers={"X-API-Key": key}, timeout=TIMEOUT_S, trust_env=False) as http:
        endpoint = Endpoint(http, settings.url, inference=None if settings.url else local)
        answer_lines(sys.stdin.buffer, _write_line, partial(forward, endpoint))


class Endpoint:
    """The inference service's tools.

    Args:
        url: of any service, which is asked for the address of inference when it is first needed.
        inference: that address, if it is known.
    """

    def __init__(self, http: httpx.Client, url: str, *, inference: str | None = None) -> None:
        self._http = http
        self._url = url
        self._inference = inference

    def post(self, message: bytes) -> httpx.Response:
        """Send a message; under an idempotency key, so that no attempt is billed twice.

        Raises:
            HTTPError: the service cannot be reached.
            InvalidURL: the configured URL is not one.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        for attempt in range(ATTEMPTS):
            try:
                if self._inference is None:
                    self._inference = find_service(self._http, self._url, "inference")
                url = f"{self._inference}/mcp"
                return self._http.post(url, content=message, headers=headers)
            except httpx.TransportError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError  # the last attempt returns or raises


def answer_lines(
    lines: Iterable[bytes], write: Write, answer: Callable[[bytes], bytes | None]
) -> None:
    """Answer each line, several at once, until the input ends.

    Args:
        write: writes one whole line; it is called by one thread at a time.
        answer: returns the answer to a line, if there is one.
    """
    writing, free = Lock(), BoundedSemaphore(AT_ONCE)

    def work(line: bytes) -> None:
        try:
            content = answer(line)
            if content is not None:
                with writing:
                    write(content)
        finally:
            free.release()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in lines:
            if line.strip():
                free.acquire()
                pool.submit(work, line)


def forward(endpoint: Endpoint, line: bytes) -> bytes | None:
    """Return the service's answer to a message, or an error if it does not answer."""
    try:
        response = endpoint.post(line)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return _failure(line, f"Tollgate cannot be reached: {error}")
    if response.status_code == 202:
        return None
    try:
        document = response.json()
    except ValueError:
        return _failure(line, f"Tollgate answered with status {response.status_code}.")
    if isinstance(document, dict) and "jsonrpc" in document:
        return json.dumps(document).encode()
    return _failure(line, _describe(document, response.status_code))


def _describe(document: Any, status: int) -> str:
    """Return what is wrong, from a problem document."""
    if isinstance(document, dict) and isinstance(detail := document.get("detail"), str):
        return f"{detail} (problem type: {document.get('type', status)})"
    return f"Tollgate answered with status {status}."


def _failure(line: bytes, message: str) -> bytes | None:
    """Return a JSON-RPC error as the answer to a message; None if it wants no answer."""
    try:
        request = json.loads(line)
        id = request["id"]
    except (ValueError, KeyError, TypeError):
        return None
    error = {"code": UNREACHABLE, "message": message}
    return json.dumps({"jsonrpc": "2.0", "id": id, "error": error}).encode()


def _write_line(content: bytes) -> None:
    sys.stdout.buffer.write(content + b"\n")
    sys.stdout.buffer.flush()
