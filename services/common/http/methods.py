"""HEAD, OPTIONS and `Allow` for every path, and cross-origin requests (CORS)."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.errors import BadRequest, Refuse, error_response

_ROUTED = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Methods:
    """ASGI middleware that adds HEAD to every GET, and OPTIONS to every path.

    `Allow` lists all methods of a path; the framework lists only those of one route.
    """

    def __init__(self, app: ASGIApp, *, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Copied, because a mount modifies the scope.
        path = {key: scope[key] for key in ("type", "path", "root_path")}

        async def send_with_allow(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                MutableHeaders(scope=message)["Allow"] = self._allow(path)
            await send(message)

        if scope["method"] == "HEAD":
            await self._respond_to_head(scope, receive, send_with_allow)
        elif scope["method"] == "OPTIONS" and (allow := self._allow(path)):
            await Response(status_code=204, headers={"Allow": allow})(scope, receive, send)
        else:
            await self._app(scope, receive, send_with_allow)

    async def _respond_to_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as to GET, without the body."""
        as_get = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(as_get, receive, send_without_body)
        finally:
            if "route" in as_get:  # the label of the request metrics
                scope["route"] = as_get["route"]

    def _allow(self, path: Scope) -> str:
        """Return the `Allow` value of a path; empty if the path is unknown."""
        methods = [method for method in _ROUTED if self._has(path, method)]
        if "GET" in methods:
            methods.insert(1, "HEAD")
        return ", ".join([*methods, "OPTIONS"]) if methods else ""

    def _has(self, path: Scope, method: str) -> bool:
        return any(
            route.matches({**path, "method": method, "headers": []})[0] is Match.FULL
            for route in self._router.routes
            if method == "GET" or not isinstance(route, Mount)  # only files are mounted
        )


@dataclass(frozen=True, slots=True)
class Cors:
    """The cross-origin requests that are allowed; cookies are not used.

    Args:
        headers: request headers that pages may send, besides the safelisted ones.
        exposed: response headers that pages may read.
        path: the only path that they may call; None for all.
    """

    origins: Sequence[str]
    methods: Sequence[str]
    headers: Sequence[str]
    exposed: Sequence[str] = ()
    path: str | None = None

    def around(self, app: ASGIApp, *, refuse: Refuse = error_response) -> ASGIApp:
        """Wrap an app to send CORS headers; return it unchanged if no origin may call.

        Args:
            refuse: renders the refusal of a preflight, as it does other errors.
        """
        if not self.origins:
            return app
        guarded = _Guard(app, self, refuse)
        if self.path is None:
            return guarded
        path = self.path

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            matches = scope["type"] == "http" and scope["path"] == path
            await (guarded if matches else app)(scope, receive, send)

        return dispatch


class _PreflightRefused(BadRequest):
    """A page asks for what it may not do."""


class _Guard(CORSMiddleware):
    """Starlette's CORS, which refuses a preflight in the service's own error format."""

    def __init__(self, app: ASGIApp, cors: Cors, refuse: Refuse) -> None:
        super().__init__(
            app,
            allow_origins=cors.origins,
            allow_methods=cors.methods,
            allow_headers=cors.headers,
            expose_headers=cors.exposed,
        )
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _PreflightRefused as error:
            request_id = scope.get("state", {}).get("request_id", "")
            response = self._refuse(error, path=scope["path"], request_id=request_id)
            await response(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        headers = {
            name: value
            for name, value in response.headers.items()
            if not name.startswith("content-")
        }
        raise _PreflightRefused(f"{bytes(response.body).decode()}.", headers=headers)
