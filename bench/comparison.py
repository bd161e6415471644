"""Compare servers: the same load on each, one after the other, in rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench import load
from bench.figures import Rates
from bench.load import Measured
from bench.servers import RunningServer
from bench.timing import Timing
from harness.raw_http import Connection
from harness.waiting import eventually

WARM_UP_S = 1.0


class WrongAnswer(Exception):
    """A server's answer differs from scikit-learn's."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server, and the requests that it gets over and over again.

    Args:
        is_metered: whether its usage must reach billing before another server is measured.
    """

    server: RunningServer
    requests: Sequence[bytes]
    is_metered: bool = True


@dataclass(frozen=True, slots=True)
class Compared:
    """The measurements of two sides, round by round."""

    first: tuple[Measured, ...]
    second: tuple[Measured, ...]

    @property
    def rates(self) -> Rates:
        """The requests per second of both."""
        return Rates(
            tuple(measured.rate for measured in self.first),
            tuple(measured.rate for measured in self.second),
        )

    @property
    def p99(self) -> Rates:
        """The 99th percentiles of both, in milliseconds."""
        return Rates(
            tuple(measured.p99_ms for measured in self.first),
            tuple(measured.p99_ms for measured in self.second),
        )


def check_answer(url: str, request: bytes, labels: list[Any]) -> None:
    """Send a request, again while the server is unavailable, and compare the predictions.

    Raises:
        WrongAnswer: they differ from `labels`, or the response is not 200.
    """

    def ask() -> tuple[int, Any] | None:
        with Connection(urlsplit(url).port or 80) as connection:
            connection.send(request)
            status, _, answer = connection.read()
        return None if status == 503 else (status, answer)

    status, answer = eventually(ask, every_s=1.0)
    if status != 200 or _labels(answer) != labels:
        raise WrongAnswer(f"{url}: {status} {answer!r}"[:300])


def _labels(answer: Any) -> list[Any] | None:
    """Return the labels of a response in either protocol."""
    found: list[Any] | None = answer.get("predictions")
    return answer["outputs"][0]["data"] if found is None and "outputs" in answer else found


def compare(first: Side, second: Side, *, connections: int, timing: Timing) -> Compared:
    """Measure two sides in the opposite order each round, after a warm-up of each."""
    measured: dict[int, list[Measured]] = {id(first): [], id(second): []}
    for side in (first, second):
        _measure(side, connections, WARM_UP_S)
    for number in range(timing.repetitions):
        for side in (first, second) if number % 2 else (second, first):
            measured[id(side)].append(_measure(side, connections, timing.seconds))
    return Compared(tuple(measured[id(first)]), tuple(measured[id(second)]))


def _measure(side: Side, connections: int, seconds: float) -> Measured:
    measured = load.measure(
        side.server.url, side.requests, connections=connections, seconds=seconds
    )
    if side.is_metered:
        side.server.await_shipped()
    return measured
