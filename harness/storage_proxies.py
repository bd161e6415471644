"""Proxies in front of the bucket emulator: one blocks calls, the other counts polls."""

from typing import Self

import httpx

from harness.http_servers import BlockedCall, Request, Response

_OF_ONE_CONNECTION = ("host", "connection", "content-length", "accept-encoding")
_KEPT = ("content-type", "content-range", "x-goog", "location")


class _Proxy:
    """Forwards requests to the emulator at a URL."""

    def __init__(self, upstream: str) -> None:
        self._upstream = httpx.Client(base_url=upstream, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._upstream.close()

    def forward(self, request: Request) -> Response:
        """Return the emulator's response to a request."""
        response = self._upstream.request(
            request.method,
            request.path,
            params=request.query,
            content=request.body,
            headers={
                name: value
                for name, value in request.headers.items()
                if name not in _OF_ONE_CONNECTION
            },
        )
        kept = {k: v for k, v in response.headers.items() if k.startswith(_KEPT)}
        return Response(response.status_code, response.content, kept)


class BlockingProxy(_Proxy):
    """A proxy in front of the storage; `block` blocks the next call of a kind."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._blocking: dict[str, BlockedCall] = {}
        self.down = False

    def block(self, kind: str) -> BlockedCall:
        """Block the next record of a kind (claims, done, dead), which is then not written.

        The kind "o" is the next read of an object, which then fails.
        """
        self._blocking[kind] = BlockedCall()
        return self._blocking[kind]

    def answer(self, request: Request) -> Response:
        """Forward a request, unless it is to be blocked or the storage is down."""
        if self.down:
            return Response(503)
        target = request.path + request.query.get("name", "")
        for kind in self._blocking:
            if f"/{kind}/" in target:
                self._blocking.pop(kind).wait()
                return Response(503)
        return self.forward(request)


class CountingProxy(_Proxy):
    """A proxy in front of the model bucket that counts how often inference polls it."""

    def __init__(self, upstream: str, bucket: str) -> None:
        super().__init__(upstream)
        self._listing = f"/storage/v1/b/{bucket}/o"
        self.polls = 0
        self.polls_before: dict[str, int] = {}
        """The number of polls that had begun when a release was written, by its number."""

    def answer(self, request: Request) -> Response:
        """Forward a request, and count it if it is a poll."""
        if request.path.rstrip("/") == self._listing and not request.query.get("prefix"):
            self.polls += 1
        if request.method == "POST":
            written = request.query.get("name", "").encode() + request.body[:1000]
            if b"/releases/" in written:
                name = written.split(b"/releases/")[1][:8].decode()
                self.polls_before.setdefault(name, self.polls)
        return self.forward(request)
