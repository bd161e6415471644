"""RFC 9112 on a real socket: an ambiguous message is rejected."""

import json
import time
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from harness.raw_http import WAIT_S, Connection, head
from services.common.http.protocol import LINGER_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED
from tests.integration.echo import running_echo


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The server, run as auth and billing run it and as inference runs it."""
    with running_echo(request.param) as port:
        yield port


UPGRADES = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "websocket": (b"Connection: upgrade", b"Upgrade: websocket"),
    "any word": (b"Connection: keep-alive, upgrade", b"upgrade: x"),
    "two": (b"Connection: upgrade", b"Upgrade: a", b"Upgrade: b, c"),
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
class TestUpgrade:
    def test_it_is_ignored_and_the_body_is_read(
        self, port: int, upgrade: tuple[bytes, ...]
    ) -> None:
        with Connection(port) as connection:
            connection.send(head(b"Host: x", *upgrade, b"Content-Length: 5") + b"hello")
            first = connection.read()
            connection.send(head(b"Host: x", start=b"GET /second HTTP/1.1"))
            second = connection.read()

        assert first[0] == 200
        assert first[2]["body"] == "hello"
        assert "upgrade" not in first[2]["headers"]
        assert second[2]["path"] == "/second"

    def test_a_delayed_body_is_not_read_as_a_request(
        self, port: int, upgrade: tuple[bytes, ...]
    ) -> None:
        smuggled = head(b"Host: x", start=b"GET /smuggled HTTP/1.1")
        length = b"Content-Length: %d" % len(smuggled)
        with Connection(port) as connection:
            for piece in (head(b"Host: x", *upgrade, length), smuggled[:9], smuggled[9:]):
                connection.send(piece)
                time.sleep(0.1)
            first = connection.read()
            connection.send(head(b"Host: x", start=b"GET /second HTTP/1.1"))
            second = connection.read()

        assert (first[2]["path"], first[2]["length"]) == ("/echo", len(smuggled))
        assert second[2]["path"] == "/second"

    def test_a_chunked_body_is_read(self, port: int, upgrade: tuple[bytes, ...]) -> None:
        chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        with Connection(port) as connection:
            connection.send(head(b"Host: x", *upgrade, b"Transfer-Encoding: chunked") + chunks)

            assert connection.read()[2]["body"] == "abcde"

    def test_many_in_one_read_are_each_answered(
        self, port: int, upgrade: tuple[bytes, ...]
    ) -> None:
        requests = [
            head(b"Host: x", *upgrade, b"Content-Length: 1", start=b"POST /%d HTTP/1.1" % number)
            for number in range(50)
        ]
        with Connection(port) as connection:
            connection.send(b"x".join([*requests, b""]))
            answers = [connection.read()[2] for _ in requests]

        assert [answer["path"] for answer in answers] == [f"/{n}" for n in range(50)]
        assert {answer["body"] for answer in answers} == {"x"}

    def test_a_head_in_pieces_is_read(self, port: int, upgrade: tuple[bytes, ...]) -> None:
        request = head(b"Host: x", *upgrade, b"X-Empty:", b"Content-Length: 5") + b"hello"
        with Connection(port) as connection:
            for start in range(0, len(request), 7):
                connection.send(request[start : start + 7])
                time.sleep(0.002)

            assert connection.read()[2]["body"] == "hello"


REFUSED = {
    "no Host": (400, head()),
    "two Hosts": (400, head(b"Host: x", b"Host: x")),
    "two Hosts, 1.0": (400, head(b"Host: x", b"Host: y", start=b"GET / HTTP/1.0")),
    "two Hosts in one": (400, head(b"Host: x, y")),
    "a Host with a path": (400, head(b"Host: x/y")),
    "length and coding": (
        400,
        head(b"Host: x", b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    "coding and length": (
        400,
        head(b"Host: x", b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n",
    ),
    "two lengths": (400, head(b"Host: x", b"Content-Length: 1", b"Content-Length: 2")),
    "a signed length": (400, head(b"Host: x", b"Content-Length: +1")),
    "another coding": (501, head(b"Host: x", b"Transfer-Encoding: gzip, chunked")),
    "another coding before": (
        501,
        head(b"Host: x", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    ),
    "a TE of chunked": (400, head(b"Host: x", b"TE: gzip, chunked")),
    "chunked twice": (
        400,
        head(b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ),
    "chunked not last": (400, head(b"Host: x", b"Transfer-Encoding: chunked, gzip")),
    "a coding in 1.0": (
        400,
        head(b"Host: x", b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"),
    ),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "bare LF in the headers": (400, head(b"Host: x\nA: b")),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: x\r\n\n"),
    "bare CR": (400, head(b"Host: x\rA: b")),
    "a folded header": (400, head(b"Host: x", b"A: b", b" c")),
    "a folded coding": (400, head(b"Host: x", b"Transfer-Encoding:", b" chunked")),
    "a blank before the colon": (400, head(b"Host : x")),
    "a NUL": (400, head(b"Host: x", b"A: b\0c")),
    "HTTP/0.9, said so": (505, head(b"Host: x", start=b"GET / HTTP/0.9")),
    "HTTP/2.0": (505, head(b"Host: x", start=b"GET / HTTP/2.0")),
    "HTTP/2's preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "CONNECT": (501, head(b"Host: x:1", start=b"CONNECT x:1 HTTP/1.1")),
    "a large head in one read": (431, head(b"Host: x", b"A: " + b"y" * MAX_HEAD_BYTES)),
    "a large target": (431, head(b"Host: x", start=b"GET /%b HTTP/1.1" % (b"y" * 70_000))),
    "many headers": (431, head(b"Host: x", *[b"A: b"] * 12_000)),
}


@pytest.mark.parametrize(("status", "request_"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_request_is_rejected_and_closes_the_connection(
    port: int, status: int, request_: bytes
) -> None:
    follower = head(b"Host: x", start=b"GET /follower HTTP/1.1")

    with Connection(port) as connection:
        connection.send(request_ + follower)
        answer = connection.read()

        assert answer[0] == status
        assert answer[1]["connection"] == "close"
        assert answer[1]["content-type"] == "application/problem+json"
        assert answer[2]["status"] == status
        assert answer[2]["request_id"] == answer[1]["x-request-id"]
        assert connection.is_closed()


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\nab\r\n0\r\n\r\n",
        b"2\r\nab\n0\r\n\r\n",
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"-1\r\n",
        b"2;a\nab",
    ],
)
def test_a_malformed_chunk_is_rejected(port: int, chunks: bytes) -> None:
    with Connection(port) as connection:
        connection.send(head(b"Host: x", b"Transfer-Encoding: chunked") + chunks)

        assert connection.read()[0] == 400
        assert connection.is_closed()


def test_a_request_line_in_pieces_is_not_http_0_9(port: int) -> None:
    with Connection(port) as connection:
        for piece in (b"GET /second?part=", b"B HTTP/1.1\r\n", b"Host: x\r\n\r\n"):
            connection.send(piece)
            time.sleep(0.1)

        assert connection.read()[0] == 200


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_http_0_9_is_rejected_without_waiting_for_headers(port: int, line_end: bytes) -> None:
    with Connection(port) as connection:
        connection.send(b"GET /" + line_end)

        assert connection.read()[0] == 505
        assert connection.is_closed()


def test_a_trailer_is_not_a_header(port: int) -> None:
    chunks = b"1\r\nx\r\n0\r\nAuthorization: Bearer y\r\n\r\n"
    with Connection(port) as connection:
        connection.send(head(b"Host: x", b"Transfer-Encoding: chunked") + chunks)
        answer = connection.read()

    assert answer[0] == 200
    assert answer[2]["authorization"] == []


def test_an_error_is_not_mistaken_for_the_response_to_an_earlier_request(port: int) -> None:
    first = head(b"Host: x", start=b"GET /first HTTP/1.1")
    with Connection(port) as connection:
        connection.send(first + head(b"Host: x", b"Host: y"))

        assert connection.read()[2]["path"] == "/first"
        assert connection.is_closed()


def test_the_number_of_pipelined_requests_is_limited(port: int) -> None:
    with Connection(port) as connection:
        connection.send(head(b"Host: x", start=b"GET / HTTP/1.1") * 2_000)
        answered = 0
        while connection.read()[0] == 200:
            answered += 1

    assert MAX_PIPELINED <= answered < 2_000


def test_http_1_0_needs_no_host_and_closes_after_the_response(port: int) -> None:
    with Connection(port) as connection:
        connection.send(head(start=b"GET /old HTTP/1.0"))
        answer = connection.read()

        assert (answer[0], answer[2]["path"]) == (200, "/old")
        assert connection.is_closed()


class TestHalfClosed:
    """The client has closed its side of the connection (RFC 9112 §9.6)."""

    def test_a_complete_request_is_answered_before_the_connection_closes(self, port: int) -> None:
        with Connection(port) as connection:
            connection.send(head(b"Host: x", b"Content-Length: 5") + b"hello")
            connection.finish()
            answer = connection.read()

            assert (answer[0], answer[2]["body"]) == (200, "hello")
            assert connection.is_closed()

    def test_pipelined_requests_are_all_answered(self, port: int) -> None:
        paths = ["/first", "/second", "/third"]
        starts = [f"GET {path} HTTP/1.1".encode() for path in paths]
        with Connection(port) as connection:
            connection.send(b"".join(head(b"Host: x", start=start) for start in starts))
            connection.finish()

            assert [connection.read()[2]["path"] for _ in paths] == paths
            assert connection.is_closed()

    @pytest.mark.parametrize(
        "part", [b"", b"GET / HT", head(b"Host: x", b"Content-Length: 5") + b"hel"]
    )
    def test_an_incomplete_request_is_not_answered(self, port: int, part: bytes) -> None:
        with Connection(port) as connection:
            connection.send(part)
            connection.finish()

            assert connection.is_closed()


class TestEarlyResponse:
    """A response that is sent before the request's body has arrived."""

    @pytest.mark.parametrize("status", [401, 413])
    def test_a_client_that_sends_everything_before_reading_receives_it(
        self, port: int, status: int
    ) -> None:
        body = b"x" * (12 * 1024 * 1024)

        for _ in range(15):
            request = Request(f"http://127.0.0.1:{port}/early/{status}", data=body)
            with pytest.raises(HTTPError) as refused, urlopen(request, timeout=WAIT_S):
                pass
            with refused.value as answer:
                assert answer.code == status
                assert json.load(answer)["path"] == f"/early/{status}"

    def test_it_closes_the_connection_if_much_of_the_body_is_missing(self, port: int) -> None:
        with Connection(port) as connection:
            connection.send(head(b"Host: x", b"Content-Length: 9999999", start=_EARLY))
            answer = connection.read()
            connection.send(b"x" * 9_999_999)

            assert answer[1]["connection"] == "close"
            assert connection.is_closed()

    def test_it_closes_the_connection_if_the_body_was_not_requested(self, port: int) -> None:
        lines = (b"Host: x", b"Content-Length: 5", b"Expect: 100-continue")
        with Connection(port) as connection:
            connection.send(head(*lines, start=_EARLY))

            assert connection.read()[1]["connection"] == "close"
            assert connection.is_closed()

    def test_a_body_that_is_read_gets_100_continue_and_the_connection_stays_open(
        self, port: int
    ) -> None:
        lines = (b"Host: x", b"Content-Length: 5", b"Expect: 100-continue")
        with Connection(port) as connection:
            connection.send(head(*lines))
            asked = connection.read_interim()
            connection.send(b"hello")
            answer = connection.read()

        assert asked == 100
        assert (answer[0], answer[2]["body"]) == (200, "hello")
        assert "connection" not in answer[1]

    def test_the_connection_stays_open_if_little_is_missing(self, port: int) -> None:
        with Connection(port) as connection:
            connection.send(head(b"Host: x", b"Content-Length: 5", start=_EARLY))
            first = connection.read()
            connection.send(b"hello" + head(b"Host: x", start=b"GET /second HTTP/1.1"))
            second = connection.read()

        assert (first[0], "connection" in first[1]) == (401, False)
        assert second[2]["path"] == "/second"

    def test_discarded_data_is_never_read_as_a_request(self, port: int) -> None:
        smuggled = head(b"Host: x", start=b"GET /smuggled HTTP/1.1")
        with Connection(port) as connection:
            connection.send(head(b"Host: x", b"Content-Length: 9999999", start=_EARLY))
            connection.read()
            connection.send(smuggled * 10)

            assert connection.is_closed()

    @pytest.mark.costly
    def test_the_amount_of_discarded_data_is_limited(self, port: int) -> None:
        sent = 0
        with Connection(port) as connection:
            connection.send(head(b"Host: x", b"Content-Length: 9999999999", start=_EARLY))
            connection.read()
            with pytest.raises(ConnectionError):  # noqa: PT012  # where it ends is what is tested
                while sent < 10 * LINGER_BYTES:
                    connection.send(b"x" * 1_000_000)
                    sent += 1_000_000

        assert LINGER_BYTES / 2 < sent < 3 * LINGER_BYTES


_EARLY = b"POST /early/401 HTTP/1.1"
