"""Ending background tasks."""

import asyncio
from collections.abc import Iterable
from typing import Any


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], *, again_s: float = 2) -> None:
    """Cancel tasks and wait until they have ended; their outcomes are not raised.

    One cancellation can get lost: up to Python 3.11, `asyncio.wait_for` swallows it if what it
    waits for finishes at that moment, and a database driver waits like that for a new connection.

    Args:
        again_s: the seconds after which those that have not ended are cancelled again.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
