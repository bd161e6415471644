"""What a call does, step by step, without doing it: the clients perform the steps.

A call is a generator. It yields `Send` and `Pause`, receives what came of each, and returns its
result. So everything but input and output exists once, for synchronous and asynchronous clients.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Callable, TypeVar, Union


@dataclass(frozen=True)
class Send:
    """Send a request and wait for the answer, for at most `timeout_s` seconds.

    Without `authorized`, the API key is not sent.
    """

    method: str
    url: str
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    authorized: bool = True


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """The answer to a request; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Failure:
    """There was no complete answer; `reason` is why, in words without any secret."""

    reason: str


Step = Union[Send, Pause]
Outcome = Union[Answer, Failure, None]
"""What came of a step; None of a pause."""

Result = TypeVar("Result")
Call = Generator[Step, Outcome, Result]


@dataclass(frozen=True)
class Deadline:
    """When a call has to be over, on a clock in seconds."""

    timeout_s: float
    ends_at: float
    clock: Callable[[], float]

    @classmethod
    def after(cls, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline so many seconds from now."""
        return cls(timeout_s, clock() + timeout_s, clock)

    def remaining_s(self) -> float:
        """Return the seconds that are left; 0 or less once it has passed."""
        return self.ends_at - self.clock()
