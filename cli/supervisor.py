"""Processes that belong to this one: started, watched, started again, stopped."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import structlog

from cli.die_with_parent import die_with_parent

WRONG_SETTING = 2
"""The exit code of a service that was called wrongly; it has said why in one line."""

GRACE_S = 40
"""Seconds a service may take to finish what it began."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_LIVED_WELL_S = 5.0

log = structlog.get_logger()


class StartRefused(Exception):
    """A service cannot run with these settings."""


class Process:
    """A child in a session of its own, so that a Ctrl-C reaches it once, through us.

    Args:
        module: what `python -m` runs, and the arguments it gets.
        environment: all of it.
    """

    def __init__(self, *module: str, environment: Mapping[str, str]) -> None:
        self._command = die_with_parent(sys.executable, "-m", *module)
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None
        self._unwanted = False

    async def run(self) -> int:
        """Run it to its end; the exit code, negative for a signal."""
        self._child = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._unwanted:  # stopped while it was being started
            self._signal(signal.SIGTERM)
        return await self._child.wait()

    async def stop(self) -> None:
        """SIGTERM; if that does not end it in time, SIGKILL."""
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
        """SIGKILL."""
        self._unwanted = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(number)


class Service:
    """A service that is started again whenever it ends, until it is stopped."""

    def __init__(self, name: str, *, port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.has_been_ready = False
        self._process = Process(f"services.{name}", environment=environment)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep it running; a pause that grows keeps a broken one from burning the machine.

        Raises:
            StartRefused: it was called wrongly, and has never been ready.
        """
        pause_s = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._process.run()
            if self._stopping.is_set():
                return
            if code == WRONG_SETTING and not self.has_been_ready:
                raise StartRefused(self.name)
            if time.monotonic() - started > _LIVED_WELL_S:
                pause_s = 0.0
            pause_s = min(max(_FIRST_PAUSE_S, pause_s * 2), _LONGEST_PAUSE_S)
            log.warning(f"{self.name} ended ({_reason(code)}); restarting it in {pause_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def stop(self) -> None:
        """Let it finish what it began, and go."""
        self._stopping.set()
        await self._process.stop()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._process.kill()


def _reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
