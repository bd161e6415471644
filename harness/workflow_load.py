"""Callers that pay for predictions continuously."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from harness.platform import Platform
from harness.storage_proxies import CountingProxy

PAUSE_S = 0.25


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
        """The responses of all callers."""
        return [response for caller in self.callers for response in caller]

    def has_predicted_after(self, polls: int) -> bool:
        """Return whether every caller got a response to a request sent after this many polls."""
        return all(caller and caller[-1].polls >= polls for caller in self.callers)


@contextmanager
def paying(
    platform: Platform, token: str, path: str, body: object, proxy: CountingProxy
) -> Iterator[Load]:
    """Run two callers of one account, which predict in a loop until the end of the block."""
    load, stopping = Load([[], []]), threading.Event()

    def call(responses: list[ObservedResponse]) -> None:
        with platform.client("inference", token) as http:
            while not stopping.wait(PAUSE_S):
                polls = proxy.polls
                try:
                    response = http.post(path, json=body)
                except httpx.HTTPError:
                    responses.append(ObservedResponse(polls, 0, None, None, None))
                    continue
                version, event = (
                    response.headers.get(name) for name in ("X-Model-Version", "X-Usage-Event")
                )
                predictions = response.json().get("predictions")
                responses.append(
                    ObservedResponse(polls, response.status_code, version, event, predictions)
                )

    threads = [threading.Thread(target=call, args=(responses,)) for responses in load.callers]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
