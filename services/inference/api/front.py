"""The ASGI app in front of FastAPI, whose routing would cost more than a prediction."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from services.common.http.methods import Cors
from services.inference.api.targets import Target, find_explanation, find_target

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

Predict = Callable[[Target, Scope, Receive, Send], Awaitable[None]]


class InferenceApp:
    """Passes predictions to their endpoint, `app.state.predict`, and everything else to FastAPI."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            target = find_target(path) or find_explanation(path)
            if target is not None:
                predict: Predict = self.app.state.predict
                await predict(target, scope, receive, send)
                return
        await self.app(scope, receive, send)


def around_predictions(predict: Predict, *, cors: Cors, tracing: "Tracing | None") -> Predict:
    """Add the spans and CORS headers that the app's middleware adds to other requests."""
    if tracing is not None:
        predict = _with_tracing(predict, tracing)
    return _with_cors(predict, cors) if cors.origins else predict


def _with_cors(predict: Predict, cors: Cors) -> Predict:
    """Add CORS headers to predictions; FastAPI answers the preflights."""

    def answer(target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return cors.around(partial(predict, target))(scope, receive, send)

    return answer


def _with_tracing(predict: Predict, tracing: "Tracing") -> Predict:
    """Record spans of predictions."""

    def answer(target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return tracing.answer(
            partial(predict, target), scope, receive, send, route=target.codec.route
        )

    return answer
