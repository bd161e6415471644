"""Routes that check the token first, then read a bounded body and parse strict JSON."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from services.common import strict_json
from services.common.errors import DuplicateMember, UnreadableJson, malformed_json
from services.common.identity.guards import Guard


class _Body(Request):
    """A request with a bounded body, which reports invalid JSON only after all other checks.

    Compressed bodies are rejected: no service decompresses untrusted input.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        if self.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "Content-Encoding is not supported.")
        limit, received = self.app.state.max_body_bytes, 0
        if int(self.headers.get("content-length", 0)) > limit:
            raise HTTPException(413, "The body is too large.")
        async for chunk in super().stream():
            received += len(chunk)
            if received > limit:
                raise HTTPException(413, "The body is too large.")
            yield chunk

    async def json(self) -> Any:
        body = await self.body()
        try:
            return strict_json.loads(body)
        except orjson.JSONDecodeError:
            return UnreadableJson(malformed_json())
        except strict_json.DuplicateMemberError:
            return UnreadableJson(DuplicateMember())


class _GuardedRoute(APIRoute):
    """A route that checks the bearer token before it reads the body.

    FastAPI reads and parses a body before it resolves dependencies, but an anonymous megabyte of
    bad JSON must be a cheap 401.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        guards = list_guards(self.dependant)

        async def guarded(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            return await handle(_Body(request.scope, request.receive))

        return guarded


def new_router(*, prefix: str = "", tag: str) -> APIRouter:
    """Return a router whose routes check the token before reading the body."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=_GuardedRoute)


def list_guards(dependant: Dependant) -> list[Guard]:
    """Return what a route checks before it reads the body."""
    own_guards = [dependant.call] if isinstance(dependant.call, Guard) else []
    return own_guards + [each for inner in dependant.dependencies for each in list_guards(inner)]
