"""Supervise child processes: start, watch, restart and stop them."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import structlog

from cli.die_with_parent import die_with_parent

WRONG_SETTING = 2
"""The exit code of a service with invalid settings, which it has reported in one line."""

GRACE_S = 40
"""Seconds for a service to finish work in progress."""

_MIN_PAUSE_S = 0.2
_MAX_PAUSE_S = 30.0
_STABLE_AFTER_S = 5.0

log = structlog.get_logger()


class StartRefused(Exception):
    """A service cannot run with its settings, or preparation failed; the process has logged why."""


class Process:
    """A child process in its own session, so that Ctrl-C reaches it only through us.

    Args:
        module: the module for `python -m`, and its arguments.
        environment: the complete environment.
    """

    def __init__(self, *module: str, environment: Mapping[str, str]) -> None:
        self._command = die_with_parent(sys.executable, "-m", *module)
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None
        self._unwanted = False

    async def run(self) -> int:
        """Run to the end and return the exit code, negative for a signal."""
        self._child = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._unwanted:  # stopped during the start
            self._signal(signal.SIGTERM)
        return await self._child.wait()

    async def stop(self) -> None:
        """Send SIGTERM and, if the process does not end in time, SIGKILL."""
        self._unwanted = True
        if self._child is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._child.wait()
        except TimeoutError:
            self.kill()
            await self._child.wait()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._unwanted = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(number)


class Service:
    """A service that is restarted whenever it ends, until it is stopped."""

    def __init__(self, name: str, *, port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.started = asyncio.Event()
        self.has_been_ready = False
        self._process = Process(f"services.{name}", environment=environment)
        self._stopping = asyncio.Event()

    async def run(self, *, after: asyncio.Task[int] | None) -> None:
        """Run and restart the service, with exponential backoff.

        Args:
            after: a process that prepares what the service needs.

        Raises:
            StartRefused: its settings are invalid, and it has never been ready; or `after` failed.
        """
        if after is not None and await after != 0:
            raise StartRefused(self.name)
        self.started.set()
        pause_s = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._process.run()
            if self._stopping.is_set():
                return
            if code == WRONG_SETTING and not self.has_been_ready:
                raise StartRefused(self.name)
            if time.monotonic() - started > _STABLE_AFTER_S:
                pause_s = 0.0
            pause_s = min(max(_MIN_PAUSE_S, pause_s * 2), _MAX_PAUSE_S)
            log.warning(f"{self.name} ended ({_reason(code)}); restarting it in {pause_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def stop(self) -> None:
        """Stop after work in progress is finished."""
        self._stopping.set()
        await self._process.stop()

    def kill(self) -> None:
        """Stop at once."""
        self._stopping.set()
        self._process.kill()


def _reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
