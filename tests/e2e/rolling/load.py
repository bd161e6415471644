"""Callers that send requests continuously, over every kind of connection, and record responses."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import httpx

from harness.platform import Platform
from harness.samples import PREDICT, WINE

PAUSE_S = 0.03


@dataclass
class Account:
    """An account, and how many predictions it got."""

    token: str
    answered: int = 0


@dataclass
class Load:
    """The outcomes of the callers' requests."""

    accounts: list[Account]
    answers: int = 0
    """Successful requests of every kind."""
    failures: list[str] = field(default_factory=list)


class Callers:
    """Threads that send requests until stopped, each with its own connections.

    Args:
        ingress: the public URL of inference.
    """

    def __init__(self, platform: Platform, *, ingress: str) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.load = Load([Account(platform.new_token()) for _ in range(5)])
        inside = platform.urls["inference"]
        one, two, three, four, five = self.load.accounts
        self._loops = (
            lambda: self._predict(one, inside),
            lambda: self._predict(two, inside, pause_s=PAUSE_S / 10),
            lambda: self._predict(three, inside, keep_alive=False),
            lambda: self._predict(four, ingress),
            lambda: self._predict(five, ingress, keep_alive=False),
            self._sign_up,
            self._read_usage,
        )

    def run(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=loop) for loop in self._loops]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        self._stopping.set()

    def _predict(
        self, account: Account, url: str, *, keep_alive: bool = True, pause_s: float = PAUSE_S
    ) -> None:
        headers = {"Authorization": f"Bearer {account.token}"}
        with _client(url, headers, keep_alive=keep_alive) as http:
            for _ in self._rounds(pause_s):
                response = self._record(
                    lambda: http.post(PREDICT, json={"instances": [WINE]}), expected=200
                )
                account.answered += response is not None

    def _sign_up(self) -> None:
        """Register and sign in repeatedly."""
        with _client(self._platform.urls["auth"], {}) as http:
            for _ in self._rounds(PAUSE_S * 5):
                email, password = f"{uuid4().hex}@example.com", uuid4().hex
                account = {"email": email, "password": password}
                form = {"grant_type": "password", "username": email, "password": password}
                if self._record(partial(http.post, "/register", json=account), expected=201):
                    self._record(partial(http.post, "/token", data=form), expected=200)

    def _read_usage(self) -> None:
        headers = {"Authorization": f"Bearer {self.load.accounts[0].token}"}
        with _client(self._platform.urls["billing"], headers) as http:
            for _ in self._rounds(PAUSE_S):
                self._record(lambda: http.get("/usage"), expected=200)

    def _rounds(self, pause_s: float) -> Iterator[int]:
        """Yield the numbers of rounds until the callers are stopped."""
        return itertools.takewhile(lambda _: not self._stopping.wait(pause_s), itertools.count())

    def _record(
        self, send: Callable[[], httpx.Response], *, expected: int
    ) -> httpx.Response | None:
        """Send a request and record the outcome; return the response if it is as expected."""
        failure = ""
        try:
            response = send()
            if response.status_code != expected:
                failure = f"{response.status_code} {response.text[:300]}"
        except httpx.HTTPError as error:
            failure = repr(error)
        with self._lock:
            self.load.answers += not failure
            if failure:
                self.load.failures.append(failure)
        return None if failure else response


def _client(url: str, headers: dict[str, str], *, keep_alive: bool = True) -> httpx.Client:
    limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
    return httpx.Client(base_url=url, headers=headers, limits=limits, trust_env=False, timeout=30)


@contextmanager
def calling(platform: Platform, *, ingress: str) -> Iterator[Load]:
    """Run callers of every kind, which send requests until the end of the block."""
    callers = Callers(platform, ingress=ingress)
    threads = callers.run()
    try:
        yield callers.load
    finally:
        callers.stop()
        for thread in threads:
            thread.join()
