"""Requests with `Upgrade`, behind real proxies and from a real Java client."""

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from harness.raw_http import WAIT_S, Connection, head
from harness.reverse_proxies import KINDS, proxied
from tests.integration.echo import running_echo

ATTEMPTS = 20


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def service(request: pytest.FixtureRequest) -> Iterator[int]:
    """A service, run as auth and billing run and as inference runs."""
    with running_echo(request.param) as port:
        yield port


@pytest.fixture(scope="module", params=KINDS)
def port(
    service: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """A proxy in front of the service."""
    with proxied(request.param, service, tmp_path_factory.mktemp(request.param)) as port:
        yield port


def _get(port: int, path: str, token: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    connection.request("GET", path, headers={"Authorization": token})
    answer = json.load(connection.getresponse())
    connection.close()
    return answer


# A parser skips blank lines before a request, so the next request may start after any read.
@pytest.mark.costly
@pytest.mark.parametrize("padding", [b"", b"\r\n" * 200_000], ids=["short", "long"])
def test_an_unfinished_smuggled_request_does_not_take_over_the_next_callers(
    port: int, padding: bytes
) -> None:
    smuggled = padding + b"GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Rest: "
    request = head(
        b"Host: x",
        b"Connection: upgrade",
        b"Upgrade: anything",
        b"Content-Length: %d" % len(smuggled),
        start=b"POST /attack HTTP/1.1",
    )

    for number in range(ATTEMPTS):
        with Connection(port) as attacker:
            attacker.send(request + smuggled)
            status, _, answer = attacker.read()
            # A proxy may reject the request; if it forwards it, it forwards all of it.
            if status == 200:
                assert (answer["path"], answer["length"]) == ("/attack", len(smuggled))
        victim = _get(port, f"/victim/{number}", f"Bearer {number}")

        assert victim["path"] == f"/victim/{number}"
        assert victim["authorization"] == [f"Bearer {number}"]


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_an_upgrade_request_is_answered_normally(port: int, upgrade: bytes) -> None:
    lines = (b"Host: x", b"Connection: Upgrade", b"Upgrade: " + upgrade, b"Content-Length: 5")

    with Connection(port) as connection:
        connection.send(head(*lines) + b"hello")
        status, _, answer = connection.read()

    assert (status, answer["body"]) == (200, "hello")


# Not Caddy: Go's HTTP server cuts off clients that are still sending.
@pytest.mark.costly
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_an_early_response_passes_through_a_proxy(service: int, kind: str, tmp_path: Path) -> None:
    body = b"x" * (12 * 1024 * 1024)

    with proxied(kind, service, tmp_path / kind) as port:
        for _ in range(5):
            request = Request(f"http://127.0.0.1:{port}/early/401", data=body)
            with pytest.raises(HTTPError) as refused, urlopen(request, timeout=WAIT_S):
                pass
            with refused.value as answer:
                assert (answer.code, json.load(answer)["path"]) == (401, "/early/401")


@pytest.mark.costly
class TestJava:
    """Java's HTTP client requests HTTP/2 in the first request on every plain connection."""

    @pytest.mark.parametrize("size", [1, 300_000 // 3])
    def test_its_requests_are_read_completely(
        self, service: int, java_client: list[str], size: int
    ) -> None:
        assert _post(java_client, service, "x" * size) == [(200, size)] * 3

    def test_its_requests_are_read_completely_behind_a_proxy(
        self, port: int, java_client: list[str]
    ) -> None:
        assert _post(java_client, port, "hello") == [(200, 5)] * 3


def _post(java_client: list[str], port: int, body: str) -> list[tuple[int, int]]:
    command = [*java_client, f"http://127.0.0.1:{port}/echo", body, "3"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    answers = [line.partition(" ") for line in result.stdout.splitlines()]
    return [(int(status), json.loads(answer)["length"]) for status, _, answer in answers]
