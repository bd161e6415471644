"""The load generators: what they send, and how their output is read."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench import load
from bench.load import Measured, RequestsFailed, measure, parse_wrk, post
from harness.programs import find_program

RESULT = (
    'Running 1s test\nresult: {"responses": 2000, "seconds": 2.0, "p50_us": 1500, "p99_us": 4250, '
    '"errors": {"status": %d, "connect": 0, "read": 0, "write": 0, "timeout": 0}}\nRequests/sec: 1'
)


def test_the_result_of_wrk_becomes_rates_and_milliseconds() -> None:
    assert parse_wrk(RESULT % 0) == Measured(1000.0, 1.5, 4.25, 2000)


def test_a_failed_request_fails_the_measurement() -> None:
    with pytest.raises(RequestsFailed, match=re.escape("of 2000 responses: {'status': 3}")):
        parse_wrk(RESULT % 3)


def test_output_without_a_result_fails_with_its_end() -> None:
    with pytest.raises(RequestsFailed, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1")


def test_a_request_carries_its_headers_and_its_body() -> None:
    request = post("http://127.0.0.1:80/v1/x:predict", b"{}", Idempotency_Key="{key}")

    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.decode().split("\r\n") == [
        "POST /v1/x:predict HTTP/1.1",
        "Host: 127.0.0.1:80",
        "Content-Type: application/json",
        "Idempotency-Key: {key}",
        "Content-Length: 2",
    ]


class Recorder(BaseHTTPRequestHandler):
    """Answers every request, and remembers its key and its body."""

    protocol_version = "HTTP/1.1"
    status = 200
    seen: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.headers.get("Idempotency-Key", ""), body))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[tuple[str, type[Recorder]]]:
    handler = type("Handler", (Recorder,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", handler
        server.shutdown()
        thread.join()


@pytest.fixture(params=["wrk", "asyncio"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both load generators, one after the other."""
    if request.param == "wrk":
        find_program("wrk")
    monkeypatch.setattr(load, "has_wrk", lambda: request.param == "wrk")
    return str(request.param)


def test_requests_are_sent_in_order_from_the_first_and_over_again_with_unique_keys(
    recorder: tuple[str, type[Recorder]], client: str
) -> None:
    url, handler = recorder
    requests = [post(url, b"%d" % n, Idempotency_Key=load.KEY.decode()) for n in range(3)]

    measured = measure(url, requests, connections=1, seconds=0.3, first=2)

    keys, bodies = zip(*handler.seen, strict=True)
    assert bodies[:4] == (b"2", b"0", b"1", b"2")
    assert len(set(keys)) == len(keys)
    assert 0 < measured.responses <= len(keys)


def test_a_refused_request_fails_the_measurement(
    recorder: tuple[str, type[Recorder]], client: str
) -> None:
    url, handler = recorder
    handler.status = 503

    with pytest.raises(RequestsFailed):
        measure(url, [post(url, b"{}")], connections=2, seconds=0.3)
