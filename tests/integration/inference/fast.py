"""The app on a real socket with the fast path, and a client that controls every byte."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from harness.waiting import eventually_async
from services.common.http.protocol import Protocol
from services.common.telemetry.tracing import Tracing
from services.inference.api.front import InferenceApp
from services.inference.api.targets import Target
from services.inference.app import create_app
from services.inference.models.latency import LatencyEstimate
from services.inference.models.table import ModelTable
from services.inference.server import InferenceProtocol
from services.inference.settings import InferenceSettings
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

V1 = "/v1/models/numbers:predict"
V2 = "/v2/models/numbers/infer"
VARYING = ("date", "x-request-id", "x-usage-event")
"""Headers that differ between two equal requests."""


@dataclass
class Reply:
    """One response, as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def lasting(self) -> tuple[int, dict[str, str], Any]:
        """What an equal request gets as well."""
        headers = {name: value for name, value in self.headers.items() if name not in VARYING}
        try:
            document = json.loads(self.body)
        except ValueError:
            return self.status, headers, self.body
        document.pop("request_id", None)
        return self.status, headers, document


@dataclass
class Served:
    """A running app; `by_app` are the paths of the predictions that the app itself answered."""

    app: InferenceApp
    fast: int
    """Port on which the fast path answers."""
    ordinary: int
    """Port on which it does not."""
    by_app: list[str]
    server: uvicorn.Server
    """The server with the fast path."""


@asynccontextmanager
async def serving_both(
    settings: InferenceSettings, *, keep_alive_s: int = 75, tracing: Tracing | None = None
) -> AsyncIterator[Served]:
    """Run one app behind both protocols, and yield it once it is ready."""
    app = create_app(settings, tracing=tracing)
    assert isinstance(app, InferenceApp)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    fast, ordinary = (listener.getsockname()[1] for listener in listeners)
    servers = [
        uvicorn.Server(
            uvicorn.Config(
                app,
                http=InferenceProtocol,
                log_config=None,
                ws="none",
                timeout_keep_alive=keep_alive_s,
            )
        ),
        uvicorn.Server(
            uvicorn.Config(app, http=Protocol, lifespan="off", log_config=None, ws="none")
        ),
    ]
    tasks = [asyncio.create_task(servers[0].serve(sockets=[listeners[0]]))]
    await eventually_async(lambda: _is_started(servers[0]))
    tasks.append(asyncio.create_task(servers[1].serve(sockets=[listeners[1]])))
    await eventually_async(lambda: _is_started(servers[1]))
    served = Served(app, fast, ordinary, [], servers[0])
    _note_predictions(served)
    await eventually_async(lambda: _is_ready(fast))
    _make_quick(app.app.state.models)
    try:
        yield served
    finally:
        for server, task in zip(reversed(servers), reversed(tasks), strict=True):
            server.should_exit = True
            await task


def _make_quick(table: ModelTable) -> None:
    """Let the models count as quick, however busy the machine was when they were measured."""
    for name, version in table.resident():
        model = table.find(name, version)
        assert model is not None
        table.add(replace(model, latency=LatencyEstimate(call_s=0.0, row_s=0.0)))


def _note_predictions(served: Served) -> None:
    predict = served.app.app.state.predict

    async def noted(target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        served.by_app.append(scope["path"])
        await predict(target, scope, receive, send)

    served.app.app.state.predict = noted


async def _is_started(server: uvicorn.Server) -> bool:
    return server.started


async def _is_ready(port: int) -> bool:
    async with connected(port) as client:
        return (await client.ask(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, *pieces: bytes, pause_s: float = 0.01) -> Reply:
        """Send a request, in pieces if there are several, and return the response."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause_s)
            self.writer.write(piece)
        return await self.read()

    async def read(self, *, has_body: bool = True) -> Reply:
        """Return the next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.decode().split("\r\n")[:-2]
        fields = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in fields}
        length = int(headers.get("content-length", 0)) if has_body else 0
        body = await asyncio.wait_for(self.reader.readexactly(length), 20)
        return Reply(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """Connect, and close the connection after the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return the bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def one_row(**more: Any) -> bytes:
    return json.dumps({"instances": [NUMBERS_ROW], **more}).encode()


async def warm(client: Client, authorization: str) -> None:
    """Let the app learn the token, the account and the model."""
    assert (await client.ask(post(V1, one_row(), authorization))).status == 200


async def all_charged(neighbours: Neighbours, account: str, ids: set[str]) -> bool:
    """Return whether an account was charged for all these events."""
    return ids <= set(neighbours.charged_to(account))


async def number_charged(neighbours: Neighbours, account: str, number: int) -> bool:
    """Return whether an account was charged for so many events; it never was for more."""
    charged = neighbours.charged_to(account)
    assert len(charged) <= number
    return len(charged) == number
