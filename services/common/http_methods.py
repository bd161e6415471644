"""Which methods a path has, and from which pages of other origins they may be called."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ROUTED = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Methods:
    """ASGI middleware: HEAD wherever there is GET, OPTIONS wherever there is anything.

    `Allow` names every method of a path, where the framework names those of one of its routes.
    """

    def __init__(self, app: ASGIApp, *, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = {key: scope[key] for key in ("type", "path", "root_path")}  # a mount changes it

        async def send_stating_allow(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                MutableHeaders(scope=message)["Allow"] = self._allow(path)
            await send(message)

        if scope["method"] == "HEAD":
            await self._answer_head(scope, receive, send_stating_allow)
        elif scope["method"] == "OPTIONS" and (allow := self._allow(path)):
            await Response(status_code=204, headers={"Allow": allow})(scope, receive, send)
        else:
            await self._app(scope, receive, send_stating_allow)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As GET, but for the body."""
        as_get = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(as_get, receive, send_without_body)
        finally:
            if "route" in as_get:  # by which requests are counted
                scope["route"] = as_get["route"]

    def _allow(self, path: Scope) -> str:
        """The methods of a path; empty for an unknown one."""
        found = [method for method in _ROUTED if self._has(path, method)]
        if "GET" in found:
            found.insert(1, "HEAD")
        return ", ".join([*found, "OPTIONS"]) if found else ""

    def _has(self, path: Scope, method: str) -> bool:
        return any(
            route.matches({**path, "method": method, "headers": []})[0] is Match.FULL
            for route in self._router.routes
            if method == "GET" or not isinstance(route, Mount)  # mounted are files alone
        )


@dataclass(frozen=True, slots=True)
class Cors:
    """Which origins' pages may call (without cookies: none are used here), and what.

    Args:
        headers: request headers that they may send, beside the plain ones.
        exposed: response headers that they may read.
        path: the only one they may call; None for all.
    """

    origins: Sequence[str]
    methods: Sequence[str]
    headers: Sequence[str]
    exposed: Sequence[str] = ()
    path: str | None = None

    def around(self, app: ASGIApp) -> ASGIApp:
        """An app whose answers say so; the app itself if no origin may call."""
        if not self.origins:
            return app
        guarded = CORSMiddleware(
            app,
            allow_origins=self.origins,
            allow_methods=self.methods,
            allow_headers=self.headers,
            expose_headers=self.exposed,
        )
        if self.path is None:
            return guarded
        path = self.path

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            there = scope["type"] == "http" and scope["path"] == path
            await (guarded if there else app)(scope, receive, send)

        return answer
