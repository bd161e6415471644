"""The inference service, paid and journalled, against a bare app that runs the same model."""

import json
import socket
import statistics
import subprocess
import sys

from bench import load
from bench.figures import Figure
from cli.leash import on_leash
from tests.e2e.platform import PREDICT, ROOT, WINE, eventually
from tests.ports import free_port
from tests.processes import Processes

ROUNDS = 3
SECONDS = 4.0
WARM_UP_S = 1.0


async def predictions(platform: Processes) -> Figure:
    """Requests/s of one row, interleaved with those of the bare app."""
    model = next((platform.home / "models").glob("wine/versions/*/model.onnx"))
    port = free_port()
    bare = subprocess.Popen(  # noqa: S603, ASYNC220
        on_leash(sys.executable, "-m", "bench.bare", str(model), str(port)), cwd=ROOT
    )
    token, body = platform.new_token(), json.dumps({"instances": [WINE]})
    urls = {
        "bare": f"http://127.0.0.1:{port}{PREDICT}",
        "inference": platform.urls["inference"] + PREDICT,
    }
    rates: dict[str, list[float]] = {name: [] for name in urls}
    try:
        eventually(lambda: _answers(port))
        for number in range(ROUNDS + 1):
            seconds = SECONDS if number else WARM_UP_S
            for name, url in urls.items():
                found = await load.rate(url, body=body, token=token, seconds=seconds)
                rates[name] += [found] if number else []
    finally:
        bare.terminate()
        bare.wait()
    ours, limit = (statistics.median(rates[name]) for name in ("inference", "bare"))
    return Figure(
        "predictions ÷ a bare app with the same model",
        ours / limit,
        "×",
        None,
        f"{ours:,.0f} and {limit:,.0f} req/s, {load.CONNECTIONS} connections, by {load.tool()}",
    )


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
