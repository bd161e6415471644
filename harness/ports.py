"""Loopback ports."""

import errno
import secrets
import socket

_LOWEST, _HIGHEST = 10_000, 32_000
"""Below the ports that Linux gives to outgoing connections, which could take one in between."""
_chosen: set[int] = set()


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1 that this process has not been given before."""
    while True:
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if port in _chosen:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _chosen.add(port)
        return port


def is_listening(port: int) -> bool:
    """Return whether something on 127.0.0.1 accepts connections on this TCP port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
