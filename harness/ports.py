"""Loopback ports."""

import errno
import secrets
import socket
import sys

_LOWEST, _HIGHEST = 10_000, 32_000
"""Below the ports that Linux gives to outgoing connections, which could take one in between."""
_chosen: set[int] = set()


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1 that no process of the tests has been given before."""
    while True:
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if port in _chosen or not _reserve(port):
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _chosen.add(port)
        return port


def _reserve(port: int) -> bool:
    """Return False if another process of the tests, which may not listen yet, has this port.

    The reservation is a socket with the port as its name; it lasts as long as this process.
    """
    if sys.platform != "linux":
        return True  # only Linux has names without files
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0tollgate-tests-{port}")
    except OSError as error:
        reservation.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    reservation.detach()
    return True


def is_listening(port: int) -> bool:
    """Return whether something on 127.0.0.1 accepts connections on this TCP port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
