"""Callers who pay for predictions all the while, and a door that counts the looks at the models."""

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
    """In front of a store's bucket: it counts how often inference looks for models there."""

    def __init__(self, upstream: str, bucket: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)
        self._listing = f"/storage/v1/b/{bucket}/o"
        self.looks = 0
        self.looks_before: dict[str, int] = {}
        """How many looks had begun when an object was written, by the end of its name."""

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
        told = {
            name: value
            for name, value in passed.headers.items()
            if name.startswith(("content-type", "content-range", "x-goog", "location"))
        }
        return Answer(passed.status_code, passed.content, told)

    def close(self) -> None:
        self._upstream.close()


@dataclass(frozen=True)
class Answered:
    """What one request came to.

    Args:
        looks: how many looks at the store had begun when it was sent.
        version: None unless the status is 200.
    """

    looks: int
    status: int
    version: str | None
    event: str | None
    predictions: object


@dataclass
class Load:
    """What the callers saw, each in its order."""

    callers: list[list[Answered]] = field(default_factory=list)

    @property
    def answers(self) -> list[Answered]:
        return [answer for caller in self.callers for answer in caller]

    def has_asked_after(self, looks: int) -> bool:
        """Whether every caller was answered a request that it sent after so many looks."""
        return all(caller and caller[-1].looks >= looks for caller in self.callers)


@contextmanager
def paying(
    platform: Platform, token: str, path: str, body: object, door: CountingDoor
) -> Iterator[Load]:
    """Two callers of one account, who ask again and again until the end of the block."""
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
