"""The images' health check: its exit code and its output."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from harness.ports import free_port
from harness.programs import ROOT

NOT_READY = b'{"failing": {"database": "The database is unavailable; retry in 1 s."}}'


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """Return the port of a server that responds to every GET like this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def check(port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.common.http.readiness", str(port)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


class TestHealthCheck:
    def test_a_ready_service_passes_silently(self) -> None:
        with answering(200, b"{}") as port:
            checked = check(port)

        assert (checked.returncode, checked.stderr) == (0, "")

    def test_an_unready_service_fails_with_its_reason(self) -> None:
        with answering(503, NOT_READY) as port:
            checked = check(port)

        assert checked.returncode == 1
        assert checked.stderr == "The database is unavailable; retry in 1 s.\n"

    def test_other_servers_and_closed_ports_fail_with_one_line(self) -> None:
        with answering(503, b"<html>") as port:
            stranger = check(port)
        nobody = check(free_port())

        for checked in (stranger, nobody):
            assert checked.returncode == 1
            assert len(checked.stderr.splitlines()) == 1
