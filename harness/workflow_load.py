"""Callers that pay for predictions continuously, and a proxy that counts polls of the store."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from harness.function_servers import Request, Response
from harness.platform import Platform

PAUSE_S = 0.25
DROPPED = ("host", "connection", "content-length", "accept-encoding")


class CountingProxy:
    """A proxy in front of the model bucket that counts how often inference polls it."""

    def __init__(self, upstream: str, bucket: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)
        self._listing = f"/storage/v1/b/{bucket}/o"
        self.polls = 0
        self.polls_before: dict[str, int] = {}
        """The number of polls that had begun when a release was written, by its number."""

    def answer(self, request: Request) -> Response:
        if request.path.rstrip("/") == self._listing and not request.query.get("prefix"):
            self.polls += 1
        headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
        if request.method == "POST":
            written = request.query.get("name", "").encode() + request.body[:1000]
            if b"/releases/" in written:
                name = written.split(b"/releases/")[1][:8].decode()
                self.polls_before.setdefault(name, self.polls)
        passed = self._upstream.request(
            request.method,
            request.path,
            params=request.query,
            content=request.body,
            headers=headers,
        )
        kept = {
            name: value
            for name, value in passed.headers.items()
            if name.startswith(("content-type", "content-range", "x-goog", "location"))
        }
        return Response(passed.status_code, passed.content, kept)

    def close(self) -> None:
        self._upstream.close()


@dataclass(frozen=True)
class ObservedResponse:
    """The response to one request.

    Args:
        polls: the number of polls that had begun when the request was sent.
        version: None unless the status is 200.
    """

    polls: int
    status: int
    version: str | None
    event: str | None
    predictions: object


@dataclass
class Load:
    """The responses of each caller, in order."""

    callers: list[list[ObservedResponse]] = field(default_factory=list)

    @property
    def answers(self) -> list[ObservedResponse]:
        return [answer for caller in self.callers for answer in caller]

    def has_predicted_after(self, polls: int) -> bool:
        """Return whether every caller got a response to a request sent after this many polls."""
        return all(caller and caller[-1].polls >= polls for caller in self.callers)


@contextmanager
def paying(
    platform: Platform, token: str, path: str, body: object, proxy: CountingProxy
) -> Iterator[Load]:
    """Run two callers of one account, which predict in a loop until the end of the block."""
    load, stopping = Load([[], []]), threading.Event()

    def call(seen: list[ObservedResponse]) -> None:
        with platform.client("inference", token) as http:
            while not stopping.wait(PAUSE_S):
                polls = proxy.polls
                try:
                    answer = http.post(path, json=body)
                except httpx.HTTPError:
                    seen.append(ObservedResponse(polls, 0, None, None, None))
                    continue
                version, event = (
                    answer.headers.get(name) for name in ("X-Model-Version", "X-Usage-Event")
                )
                predictions = answer.json().get("predictions")
                seen.append(
                    ObservedResponse(polls, answer.status_code, version, event, predictions)
                )

    threads = [threading.Thread(target=call, args=(seen,)) for seen in load.callers]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
