"""A local HAProxy in place of the cluster's Services and its Ingress.

A Service forwards connections, and existing connections stay with a pod that was removed; an
Ingress forwards requests. Both probe `/readyz` of every pod, as often as the chart does.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.processes import await_process, start_process, stop_process
from harness.programs import find_program
from tests.e2e.rolling.timings import Timings

SLOTS = 8
"""Pods that one service may have at the same time, leaving ones included."""


class Balancer:
    """A running HAProxy without back ends until `add` is called.

    Args:
        services: the ports of each service, as for a Service.
        ingress: the port of inference, as for an Ingress.
    """

    def __init__(
        self, folder: Path, *, services: Mapping[str, int], ingress: int, timings: Timings
    ) -> None:
        self._socket = folder / "h"
        doors = [_frontend(name, "tcp", port) for name, port in services.items()]
        doors.append(_frontend("ingress", "http", ingress))
        head = _HEAD.format(
            socket=self._socket, probe_ms=round(timings.probe_s * 1000), failures=timings.failures
        )
        configuration = folder / "haproxy.cfg"
        configuration.write_text(head + "".join(doors))
        log = folder / "haproxy.log"
        command = (find_program("haproxy"), "-db", "-f", str(configuration))
        self._process = start_process(*command, log=log)
        await_process(self._process, self._socket.exists, log=log)

    def add(self, service: str, slot: int, *, port: int) -> None:
        """Send new connections to the pod on a port, as long as it is ready."""
        self._set(service, slot, f"addr 127.0.0.1 port {port}")
        self._set(service, slot, "state ready")

    def remove(self, service: str, slot: int) -> None:
        """Send a pod no new connections; existing ones stay."""
        self._set(service, slot, "state maint")

    def stop(self) -> None:
        """Stop HAProxy, and close all its connections."""
        stop_process(self._process)

    def _set(self, service: str, slot: int, state: str) -> None:
        doors = (service, "ingress") if service == "inference" else (service,)
        for door in doors:
            reply = self._command(f"set server {door}/pod{slot} {state}").strip()
            assert not reply or "changed" in reply or "no need to change" in reply, reply

    def _command(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self._socket))
            link.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: link.recv(4096), b"")).decode()


@contextmanager
def running_balancer(
    folder: Path, *, services: Mapping[str, int], ingress: int, timings: Timings
) -> Iterator[Balancer]:
    """Start HAProxy, and stop it at the end of the block.

    Raises:
        NotInstalled: HAProxy is not installed on this machine.
    """
    balancer = Balancer(folder, services=services, ingress=ingress, timings=timings)
    try:
        yield balancer
    finally:
        balancer.stop()


_HEAD = """\
global
    stats socket {socket} mode 600 level admin
    nbthread 1
    maxconn 2000

defaults
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter {probe_ms}ms fall {failures} rise 1 disabled
"""


def _frontend(name: str, mode: str, port: int) -> str:
    lines = [f"\nlisten {name}", f"    mode {mode}", f"    bind 127.0.0.1:{port}"]
    lines += [f"    server pod{slot} 127.0.0.1:1" for slot in range(SLOTS)]
    return "\n".join(lines) + "\n"
