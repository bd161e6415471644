"""A service in its own process whose responses show how it read the request.

    python -m tests.integration.echo <port> <loop> <trusted proxies> <trusted hosts>

It runs as the services do, with their `serve`, on `asyncio` like auth and billing or on `uvloop`
like inference.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson
from starlette.types import Receive, Scope, Send

from harness.ports import free_port
from harness.processes import running_process
from harness.waiting import is_answering
from services.common.http.server import listen, serve


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's content; under `/early/<status>`, before reading the body."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = 200, b""
    if scope["path"].startswith("/early/"):
        status = int(scope["path"].removeprefix("/early/"))
    else:
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
    names = [name.decode() for name, _ in scope["headers"]]
    token = [value.decode() for name, value in scope["headers"] if name == b"authorization"]
    content = orjson.dumps(
        {
            "method": scope["method"],
            "path": scope["path"],
            "scheme": scope["scheme"],
            "client": scope["client"][0],
            "headers": names,
            "authorization": token,
            "length": len(body),
            "body": body[:1000].decode("latin-1"),
        }
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def running_echo(
    loop: str, *trusted_proxies: str, trusted_hosts: Sequence[str] = ()
) -> Iterator[int]:
    """Yield the port of an echo that runs inside the block."""
    port = free_port()
    lists = (",".join(trusted_proxies), ",".join(trusted_hosts))
    command = (sys.executable, "-m", "tests.integration.echo", str(port), loop, *lists)
    with running_process(
        *command, is_ready=lambda: is_answering(f"http://127.0.0.1:{port}/healthz")
    ):
        yield port


if __name__ == "__main__":
    serve(
        app,
        listen("127.0.0.1", int(sys.argv[1]), variable="PORT"),
        loop="uvloop" if sys.argv[2] == "uvloop" else "asyncio",
        trusted_proxies=list(filter(None, sys.argv[3].split(","))),
        trusted_hosts=list(filter(None, sys.argv[4].split(","))),
    )
