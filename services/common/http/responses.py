"""Responses in as few packets as possible, for the HTTP/1.1 server protocol."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_CONTROLS = bytes({*range(32), 127} - {ord("\t")})


class ResponseSender:
    """Sends a response's head and body in one write, if the body is complete.

    Uvicorn writes them separately, which takes two packets and wakes the client twice. It still
    handles all other responses, message by message.

    Args:
        keeps_connection: whether the connection can be reused after a response that starts now.
    """

    def __init__(
        self,
        cycle: RequestResponseCycle,
        keeps_connection: Callable[[RequestResponseCycle], bool],
    ) -> None:
        self._cycle = cycle
        self._keeps_connection = keeps_connection
        self._start: Any = None

    async def send(self, message: Any) -> None:
        """Send one message of the response; this is the request's ASGI `send`."""
        cycle, start, self._start = self._cycle, self._start, None
        if message["type"] == "http.response.start":
            self._start = message
            return
        if start is not None:
            if not self._keeps_connection(cycle):
                cycle.keep_alive = False
            response = _joined(cycle, start, message)
            if response is None:
                await cycle.send(start)
            else:
                cycle.response_started = True
                cycle.waiting_for_100_continue = False
                cycle.chunked_encoding = False
                cycle.expected_content_length = len(response)
                message = {"type": "http.response.body", "body": response}
        await cycle.send(message)


def _joined(cycle: RequestResponseCycle, start: Any, message: Any) -> bytes | None:
    """Return the bytes of a complete response with the right Content-Length, otherwise None."""
    if message.get("more_body") or cycle.scope["method"] == "HEAD" or not cycle.keep_alive:
        return None
    headers = [*cycle.default_headers, *start["headers"]]
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = STATUS_LINE[start["status"]] + b"".join(lines)
    # Prevent header injection: line ends must be the only control characters.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 1):
        return None
    body: bytes = message.get("body", b"")
    if b"\r\ncontent-length: %d\r\n" % len(body) not in head or b"\r\nconnection: " in head:
        return None
    return head + b"\r\n" + body
