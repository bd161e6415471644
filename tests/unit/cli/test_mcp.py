"""`tollgate mcp`: what it passes on, and what it answers by itself."""

import json
from collections.abc import Callable
from threading import Barrier
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import mcp
from cli.main import app
from cli.mcp import ATTEMPTS, UNREACHABLE, Endpoint, answer_lines, forward

INFERENCE = "http://inference"
CALL = b'{"jsonrpc": "2.0", "id": 4, "method": "tools/call"}\n'
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n'
PROBLEM = {
    "type": "urn:tollgate:problem:invalid_token",
    "detail": "Valid credentials are required.",
}

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "_PAUSE_S", 0.0)


def endpoint(handler: Handler, *, inference: str | None = INFERENCE) -> Endpoint:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    return Endpoint(http, "http://any/", inference=inference)


def answer(handler: Handler, line: bytes) -> Any:
    """Return the answer to a line, or None."""
    content = forward(endpoint(handler), line)
    assert content is None or b"\n" not in content
    return None if content is None else json.loads(content)


def test_an_answer_is_passed_back() -> None:
    document = {"jsonrpc": "2.0", "id": 4, "result": {"x": "ü\n"}}
    received = []

    def handle(request: httpx.Request) -> httpx.Response:
        received.append((str(request.url), request.content))
        return httpx.Response(200, json=document)

    assert answer(handle, CALL) == document
    assert received == [(f"{INFERENCE}/mcp", CALL)]


def test_a_notification_has_no_answer() -> None:
    assert answer(lambda _: httpx.Response(202), NOTIFICATION) is None
    assert answer(lambda _: httpx.Response(401, json=PROBLEM), NOTIFICATION) is None


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            httpx.Response(401, json=PROBLEM),
            "Valid credentials are required. (problem type: urn:tollgate:problem:invalid_token)",
        ),
        (httpx.Response(502, text="<html>"), "Tollgate answered with status 502."),
        (httpx.Response(307, json=[]), "Tollgate answered with status 307."),
    ],
)
def test_an_error_of_http_becomes_one_of_the_protocol(
    response: httpx.Response, message: str
) -> None:
    assert answer(lambda _: response, CALL) == {
        "jsonrpc": "2.0",
        "id": 4,
        "error": {"code": UNREACHABLE, "message": message},
    }


def test_a_lost_answer_is_asked_for_again_under_the_same_idempotency_key() -> None:
    keys = []

    def lose_all_but_the_last(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) % ATTEMPTS:
            raise httpx.ReadError("reset")
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 4, "result": {}})

    first, second = (answer(lose_all_but_the_last, CALL) for _ in range(2))

    assert "result" in first
    assert "result" in second
    assert len(keys) == 2 * ATTEMPTS
    assert len(set(keys[:ATTEMPTS])) == len(set(keys[ATTEMPTS:])) == 1
    assert len(set(keys)) == 2


def test_a_service_that_cannot_be_reached_is_reported() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    error = answer(refuse, CALL)["error"]

    assert error["message"] == "Tollgate cannot be reached: connection refused"
    assert answer(refuse, NOTIFICATION) is None
    assert answer(refuse, b"nonsense") is None


def test_inference_is_found_once_by_any_service() -> None:
    paths = []

    def handle(request: httpx.Request) -> httpx.Response:
        paths.append(str(request.url))
        if request.url.path == "/.well-known/tollgate":
            return httpx.Response(200, json={"inference": f"{INFERENCE}/"})
        return httpx.Response(202)

    found = endpoint(handle, inference=None)
    for _ in range(2):
        forward(found, NOTIFICATION)

    assert paths == ["http://any/.well-known/tollgate", *[f"{INFERENCE}/mcp"] * 2]


def test_messages_are_answered_at_once_and_each_on_one_line() -> None:
    both = Barrier(2, timeout=30)
    written: list[bytes] = []

    def wait_for_the_other(line: bytes) -> bytes:
        both.wait()
        return line.strip()

    answer_lines([b"1\n", b"\n", b"2\n"], written.append, wait_for_the_other)

    assert sorted(written) == [b"1", b"2"]


def test_without_a_key_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_API_KEY", raising=False)

    ended = CliRunner().invoke(app, ["mcp"])

    assert ended.exit_code == 1
    assert ended.stderr == "error: set TOLLGATE_API_KEY to an API key with scope `predict`\n"
