"""Callers that pay for predictions continuously, and a proxy that counts polls of the store."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.e2e.platform import Platform
from tests.functions.servers import Answer, Asked

PAUSE_S = 0.25
DROPPED = ("host", "connection", "content-length", "accept-encoding")


class CountingDoor:
    """A proxy in front of the model bucket that counts how often inference polls it."""

    def __init__(self, upstream: str, bucket: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)
        self._listing = f"/storage/v1/b/{bucket}/o"
        self.looks = 0
        self.looks_before: dict[str, int] = {}
        """The number of polls that had begun when a release was written, by its number."""

    def answer(self, asked: Asked) -> Answer:
        if asked.path.rstrip("/") == self._listing and not asked.query.get("prefix"):
            self.looks += 1
        headers = {name: value for name, value in asked.headers.items() if name not in DROPPED}
        if asked.method == "POST":
            written = asked.query.get("name", "").encode() + asked.body[:1000]
            if b"/releases/" in written:
                name = written.split(b"/releases/")[1][:8].decode()
                self.looks_before.setdefault(name, self.looks)
        passed = self._upstream.request(
            asked.method, asked.path, params=asked.query, content=asked.body, headers=headers
        )
        kept = {
            name: value
            for name, value in passed.headers.items()
            if name.startswith(("content-type", "content-range", "x-goog", "location"))
        }
        return Answer(passed.status_code, passed.content, kept)

    def close(self) -> None:
        self._upstream.close()


@dataclass(frozen=True)
class Answered:
    """The response to one request.

    Args:
        looks: the number of polls that had begun when the request was sent.
        version: None unless the status is 200.
    """

    looks: int
    status: int
    version: str | None
    event: str | None
    predictions: object


@dataclass
class Load:
    """The responses of each caller, in order."""

    callers: list[list[Answered]] = field(default_factory=list)

    @property
    def answers(self) -> list[Answered]:
        return [answer for caller in self.callers for answer in caller]

    def has_asked_after(self, looks: int) -> bool:
        """Return whether every caller got a response to a request sent after this many polls."""
        return all(caller and caller[-1].looks >= looks for caller in self.callers)


@contextmanager
def paying(
    platform: Platform, token: str, path: str, body: object, door: CountingDoor
) -> Iterator[Load]:
    """Run two callers of one account, which predict in a loop until the end of the block."""
    load, stopping = Load([[], []]), threading.Event()

    def call(seen: list[Answered]) -> None:
        with platform.client("inference", token) as http:
            while not stopping.wait(PAUSE_S):
                looks = door.looks
                try:
                    answer = http.post(path, json=body)
                except httpx.HTTPError:
                    seen.append(Answered(looks, 0, None, None, None))
                    continue
                version, event = (
                    answer.headers.get(name) for name in ("X-Model-Version", "X-Usage-Event")
                )
                predictions = answer.json().get("predictions")
                seen.append(Answered(looks, answer.status_code, version, event, predictions))

    threads = [threading.Thread(target=call, args=(seen,)) for seen in load.callers]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
