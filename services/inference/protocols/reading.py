"""The head and the body of a prediction request, as they come from the socket."""

import asyncio
import re
from typing import NamedTuple

from starlette.types import Receive

from services.common.errors import BadRequest, ServiceError
from services.inference.protocols.admission import Held
from services.inference.protocols.v2.document import JSON_LENGTH_HEADER

BODY_DEADLINE_S = 30.0

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_LENGTH = re.compile(rb"[0-9]{1,10}")


class BodyTooLarge(ServiceError):
    """The body is over the limit."""

    status = 413
    code = "body_too_large"
    detail = "The body is too large."


class EncodingRefused(ServiceError):
    """A compressed body; nothing here inflates what a stranger sends."""

    status = 415
    code = "encoding_not_accepted"
    detail = "Content-Encoding is not accepted."


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_too_slow"
    detail = "The body did not arrive in time."


class ClientGone(Exception):
    """The client hung up before its request was complete, so nobody waits for an answer."""


class Head(NamedTuple):
    """What the request's headers say, read in one pass; lengths in bytes."""

    idempotency_key: str | None
    length: int
    json_length: int | None


def read_head(headers: list[tuple[bytes, bytes]]) -> Head:
    """Return the headers that matter to a prediction.

    Raises:
        EncodingRefused: the body is encoded.
        BadRequest: an `Idempotency-Key` that is empty, too long, not printable or given twice, or
            an `Inference-Header-Content-Length` that is not a number.
    """
    key: bytes | None = None
    length, json_length = 0, None
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None or not _KEY.fullmatch(value):
                raise BadRequest("Idempotency-Key takes 1 to 255 printable ASCII characters.")
            key = value
        elif name == b"content-length":
            length = int(value)
        elif name == JSON_LENGTH_HEADER:
            if json_length is not None or not _LENGTH.fullmatch(value):
                raise BadRequest("Inference-Header-Content-Length takes a number of bytes.")
            json_length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise EncodingRefused()
    return Head(None if key is None else key.decode("ascii"), length, json_length)


async def read_body(receive: Receive, limit: int, held: Held) -> bytes:
    """Return the whole body, whose bytes are counted as they come.

    Raises:
        BodyTooLarge: more than `limit` bytes came.
        BodyTooSlow: it did not come in time.
        ClientGone: the client hung up.
        Saturated: requests keep too many bytes already.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        _count(len(whole), limit, held)
        return whole
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while message["type"] == "http.request":
                chunk = message.get("body", b"")
                _count(len(chunk), limit, held)
                chunks += chunk
                if not message.get("more_body", False):
                    return bytes(chunks)
                message = await receive()
    except TimeoutError as error:
        raise BodyTooSlow() from error
    raise ClientGone


def _count(size: int, limit: int, held: Held) -> None:
    if held.size + size > limit:
        raise BodyTooLarge()
    held.grow(size)
