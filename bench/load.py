"""Load on one URL: by wrk if it is installed, otherwise by an asyncio client."""

import asyncio
import re
import shutil
import subprocess
import tempfile
import time

CONNECTIONS = 16

_SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
done = function(summary)
  local errors = summary.errors
  print("failed: " .. errors.status + errors.connect + errors.read + errors.write + errors.timeout)
end
"""


def tool() -> str:
    """Return the name of the load generator."""
    return "wrk" if shutil.which("wrk") else "an asyncio client"


async def rate(url: str, *, body: str, token: str, seconds: float) -> float:
    """Return responses per second over `CONNECTIONS` connections with one request each in flight.

    Raises:
        RuntimeError: a request failed.
    """
    if shutil.which("wrk"):
        return await asyncio.to_thread(_wrk, url, body, token, seconds)
    return await _asyncio(url, body, token, seconds)


def _wrk(url: str, body: str, token: str, seconds: float) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(body=body, token=token))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
        output = subprocess.run(
            [*command, "-s", script.name, url], capture_output=True, text=True, check=True
        ).stdout
    failed, rate_found = (
        re.search(r"failed: (\d+)", output),
        re.search(r"Requests/sec: +([\d.]+)", output),
    )
    if failed is None or rate_found is None or int(failed[1]):
        raise RuntimeError(output)
    return float(rate_found[1])


async def _asyncio(url: str, body: str, token: str, seconds: float) -> float:
    host, _, path = url.removeprefix("http://").partition("/")
    request = (
        f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    deadline = time.perf_counter() + seconds
    name, _, port = host.partition(":")

    async def send_until_deadline() -> int:
        reader, writer = await asyncio.open_connection(name, int(port))
        responses = 0
        while time.perf_counter() < deadline:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise RuntimeError(head.decode())
            await reader.readexactly(int(length[1]))
            responses += 1
        writer.close()
        return responses

    return sum(await asyncio.gather(*(send_until_deadline() for _ in range(CONNECTIONS)))) / seconds
