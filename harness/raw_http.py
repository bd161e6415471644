"""HTTP byte by byte, to send what no HTTP library would, and to read the responses."""

import json
import socket
from typing import Any

WAIT_S = 15


class Connection:
    """A raw socket, and the responses on it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def finish(self) -> None:
        """Close this side of the connection only."""
        self._socket.shutdown(socket.SHUT_WR)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def read(self) -> tuple[int, dict[str, str], Any]:
        """Return the next response: status, headers and JSON; 0 if the connection ended."""
        start = self._file.readline()
        if not start:
            return 0, {}, None
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers["content-length"]))
        return int(start.split()[1]), headers, json.loads(body) if body else None

    def read_interim(self) -> int:
        """Return the status of an interim response, such as 100."""
        start = self._file.readline()
        while self._file.readline().strip():
            pass
        return int(start.split()[1])

    def is_closed(self) -> bool:
        """Return whether the server has closed the connection; waits for more bytes or the end."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def head(*lines: bytes, start: bytes = b"POST /echo HTTP/1.1") -> bytes:
    """Return a request's head."""
    return b"\r\n".join([start, *lines, b"", b""])
