"""Read the headers and the body of a prediction request."""

import asyncio
import re
import time
from typing import NamedTuple

from starlette.types import Receive, Scope

from services.common.errors import BadRequest, BodyTooLarge, ServiceError, Unavailable
from services.common.http.disconnects import has_closed
from services.inference.api.admission import MemoryReservation
from services.inference.api.headers import TIMEOUT_PATTERN
from services.inference.api.tags import read_tags
from services.inference.api.v2.document import JSON_LENGTH_HEADER

BODY_DEADLINE_S = 30.0

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_LENGTH = re.compile(rb"[0-9]{1,10}")
_TIMEOUT = re.compile(TIMEOUT_PATTERN.encode())


class EncodingNotAccepted(ServiceError):
    """The body is compressed; untrusted input is never decompressed."""

    status = 415
    code = "encoding_not_accepted"
    detail = "Content-Encoding is not supported; send the body uncompressed."


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_too_slow"
    detail = "The body did not arrive in time."


class ClientDisconnected(Exception):
    """The client disconnected before it sent the whole request."""


class Abandoned(Unavailable):
    """Nobody waits for the answer any more; nothing was predicted or billed."""

    code = "abandoned"


class Head(NamedTuple):
    """The request headers that matter to a prediction; lengths in bytes."""

    idempotency_key: str | None
    length: int
    json_length: int | None
    timeout_s: float | None = None
    """After so many seconds, the caller does not wait for the answer any more."""
    is_csv: bool = False
    tags: str | None = None
    """A JSON object."""


def read_head(headers: list[tuple[bytes, bytes]], *, max_bytes: int) -> Head:
    """Read the headers in one pass.

    Args:
        max_bytes: the limit of the body's length.

    Raises:
        BodyTooLarge: the body is longer than that.
        EncodingNotAccepted: the body is encoded.
        BadRequest: `Idempotency-Key` is empty, too long, not printable or repeated, or
            `Inference-Header-Content-Length` or `X-Request-Timeout` is not a number, or `X-Tags`
            is malformed or repeated.
    """
    key: bytes | None = None
    length, json_length, timeout_s, is_csv, tags = 0, None, None, False, None
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None or not _KEY.fullmatch(value):
                raise BadRequest(
                    "Idempotency-Key must be 1 to 255 printable ASCII characters, sent once."
                )
            key = value
        elif name == b"content-length":
            length = int(value)
        elif name == JSON_LENGTH_HEADER:
            if json_length is not None or not _LENGTH.fullmatch(value):
                raise BadRequest(
                    "Inference-Header-Content-Length must be a number of bytes, sent once."
                )
            json_length = int(value)
        elif name == b"x-request-timeout":
            if timeout_s is not None or not _TIMEOUT.fullmatch(value) or not float(value):
                raise BadRequest(
                    "X-Request-Timeout must be a decimal number of seconds above 0, sent once."
                )
            timeout_s = float(value)
        elif name == b"content-type":
            is_csv = value.partition(b";")[0].strip().lower() == b"text/csv"
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise EncodingNotAccepted()
        elif name == b"x-tags":
            if tags is not None:
                raise BadRequest("X-Tags must be sent once.")
            tags = read_tags(value)
    if length > max_bytes:
        raise BodyTooLarge()
    text = None if key is None else key.decode("ascii")
    return Head(text, length, json_length, timeout_s, is_csv, tags)


def check_deadline(head: Head, *, started: float) -> None:
    """Check that the request's `X-Request-Timeout`, if it has one, has not passed.

    Args:
        started: when the request arrived, on the performance counter.

    Raises:
        Abandoned: it has.
    """
    if head.timeout_s is not None and time.perf_counter() >= started + head.timeout_s:
        raise Abandoned("X-Request-Timeout passed before the prediction could begin.")


def check_wanted(scope: Scope, head: Head, *, started: float) -> None:
    """Check that the client still waits for the answer.

    Not for a request that can begin at once: a few clients close their side of the connection
    after the request, and then read the answer.

    Raises:
        Abandoned: its deadline has passed, or it has closed its side of the connection.
    """
    check_deadline(head, started=started)
    if has_closed(scope):
        raise Abandoned("The client closed its connection before the prediction could begin.")


async def read_body(receive: Receive, limit: int, memory: MemoryReservation) -> bytes:
    """Read the whole body, and count its bytes as they arrive.

    Raises:
        BodyTooLarge: the body has more than `limit` bytes.
        BodyTooSlow: the body did not arrive in time.
        ClientDisconnected: the client disconnected.
        Saturated: requests already keep too many bytes in memory.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        _count(len(whole), limit, memory)
        return whole
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while message["type"] == "http.request":
                chunk = message.get("body", b"")
                _count(len(chunk), limit, memory)
                chunks += chunk
                if not message.get("more_body", False):
                    return bytes(chunks)
                message = await receive()
    except TimeoutError as error:
        raise BodyTooSlow() from error
    raise ClientDisconnected


def _count(size: int, limit: int, memory: MemoryReservation) -> None:
    if memory.size + size > limit:
        raise BodyTooLarge()
    memory.grow(size)
