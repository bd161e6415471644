"""The tasks that run beside the requests for the whole life of the process."""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

log = structlog.get_logger()


class Background:
    """Owns endless tasks, by name; start it on a running event loop.

    Args:
        tasks: what each task runs, until it is cancelled.
    """

    def __init__(self, **tasks: Callable[[], Coroutine[None, None, None]]) -> None:
        self._tasks = {name: asyncio.create_task(run()) for name, run in tasks.items()}

    async def check(self) -> str | None:
        """Report tasks that ended, which only a bug can cause; serving would be unsafe."""
        stopped = [name for name, task in self._tasks.items() if task.done()]
        return f"Background tasks stopped: {', '.join(stopped)}." if stopped else None

    async def cancel(self) -> None:
        """Stop all tasks, and log those that failed."""
        for task in self._tasks.values():
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for name, outcome in zip(self._tasks, outcomes, strict=True):
            if not isinstance(outcome, asyncio.CancelledError):
                log.error("background_task_failed", task=name, error=repr(outcome))
