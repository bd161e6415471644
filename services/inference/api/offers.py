"""What the HTTP protocol and the fast path exchange: complete requests and their responses."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import structlog

from services.inference.api.reading import Head
from services.inference.api.targets import Target

log = structlog.get_logger()


class FastRequest(NamedTuple):
    """What the head of a request says; the same for every request with the same head."""

    path: str
    target: Target
    token_digest: bytes
    head: Head
    request_id: str | None


class Exchange(Protocol):
    """One request on its connection; either `send` or `decline` is called, once."""

    def send(self, answer: bytes) -> None:
        """Send a response with status 200, given without its first lines.

        Those are the status line and the headers that uvicorn gives every response.
        """

    def decline(self) -> None:
        """Pass the request to the ordinary path."""

    def defer(self) -> None:
        """Keep the connection's next requests back until `send` or `decline` follows later."""


class Offer(NamedTuple):
    """A complete request; `started` is on the performance counter."""

    exchange: Exchange
    request: FastRequest
    content: bytes
    started: float


def send(offer: Offer, answer: bytes) -> None:
    """Answer one offer; whatever goes wrong on its connection, the others are settled too."""
    try:
        offer.exchange.send(answer)
    except Exception:
        log.exception("response_failed")


def decline(offers: Iterable[Offer]) -> None:
    """Decline offers; likewise."""
    for offer in offers:
        try:
            offer.exchange.decline()
        except Exception:
            log.exception("response_failed")
