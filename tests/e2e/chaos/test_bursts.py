"""Bursts of pipelined predictions on real processes, which end in the middle."""

import socket
from collections import Counter
from collections.abc import Iterator

import orjson
import pytest

from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses
from harness.waiting import eventually
from services.inference.metering.journal import segments

BURST = 50
GARBAGE = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"


class _Connection:
    """One connection; `events` are the usage events of the responses that it read completely."""

    def __init__(self, platform: ServiceProcesses, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", platform.ports["inference"]), 20)
        self._unread = b""
        self.events: list[str] = []
        body = orjson.dumps({"instances": [WINE]})
        lines = [
            f"POST {PREDICT} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {token}",
            f"Content-Length: {len(body)}",
        ]
        self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def send(self, count: int, *, then: bytes = b"") -> None:
        self._socket.sendall(self._request * count + then)

    def read(self) -> bool:
        """Read the next response; return False if the connection ends before that."""
        while (response := self._take()) is None:
            try:
                more = self._socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                return False
            self._unread += more
        assert response["status"] == "200"
        self.events.append(response["x-usage-event"])
        return True

    def _take(self) -> dict[str, str] | None:
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(fields.get("content-length", 0))
        if not end or len(rest) < length:
            return None
        self._unread = rest[length:]
        return {"status": first.split(" ")[1], **fields}

    def close(self) -> None:
        self._socket.close()


KINDS = ["process", pytest.param("disk", marks=pytest.mark.slow)]
"""Of durability. The burst is written alike; what `disk` adds is tested on the journal itself."""


@pytest.fixture(scope="module", params=KINDS)
def durable(running: ServiceProcesses, request: pytest.FixtureRequest) -> Iterator[str]:
    """Run inference with each kind of durability, and as before afterwards."""
    if request.param == "process":  # the default
        yield request.param
        return
    running.end("inference")
    running.begin("inference", INFERENCE_JOURNAL_SYNC=request.param)
    yield request.param
    running.end("inference")
    running.begin("inference")


@pytest.mark.costly
def test_what_was_answered_before_a_kill_is_in_the_journal_once_and_billed_once(
    platform: ServiceProcesses, durable: str
) -> None:
    token = platform.new_token()
    connection = _Connection(platform, token)
    connection.send(1)
    assert connection.read()  # inference knows the account from now on
    eventually(lambda: _billed(platform, token) == 1)
    platform.kill("billing")
    for _ in range(3):
        connection.send(BURST)
        assert all(connection.read() for _ in range(BURST))

    connection.send(BURST)
    assert all(connection.read() for _ in range(BURST // 2))
    platform.kill("inference")
    while connection.read():
        pass
    connection.close()
    first, *answered = connection.events
    journalled = _journalled(platform, like=answered[0])
    platform.begin("billing", "inference", INFERENCE_JOURNAL_SYNC=durable)

    assert len(set(answered)) == len(answered)
    assert set(answered) <= journalled.keys() - {first}
    assert set(journalled.values()) == {1}
    eventually(lambda: _billed(platform, token) == len(journalled.keys() | {first}))


def test_clients_that_send_garbage_behind_a_request_keep_no_other_waiting(
    platform: ServiceProcesses, durable: str
) -> None:
    token = platform.new_token()
    staying = _Connection(platform, token)
    staying.send(1)
    assert staying.read()

    for _ in range(50):
        leaving = _Connection(platform, token)
        leaving.send(1, then=GARBAGE)
        staying.send(1)
        assert staying.read()
        leaving.close()

    staying.close()


def _journalled(platform: ServiceProcesses, *, like: str) -> Counter[str]:
    """Return how often each event is in the journal, of the account that one of them names."""
    lines = [
        line
        for path in (platform.home / "journal").glob("*.log")
        for line in path.read_bytes().split(b"\n")[:-1]
    ]
    assert all(segments.decode_line(line) for line in lines)
    events = [orjson.loads(segments.event_in(line)) for line in lines]
    [account] = {event["subject"] for event in events if event["id"] == like}
    return Counter(event["id"] for event in events if event["subject"] == account)


def _billed(platform: ServiceProcesses, token: str) -> int:
    with platform.client("billing", token) as billing:
        answer = billing.get("/usage")
    return int(answer.json()["total"]["requests"]) if answer.status_code == 200 else 0
