"""Decode request bodies: light ones on the event loop, others in a thread.

Only one such body is decoded at a time, to bound the memory it takes. Waiting accounts take turns.
"""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.inference.api.admission import FairSlots

T = TypeVar("T")


class Decoder:
    """Owns the thread in which bodies with many values are decoded."""

    def __init__(self) -> None:
        self._turn = FairSlots(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def run(self, work: Callable[[], T], *, is_light: bool, account: str) -> T:
        """Return the result of `work`, which decodes a body; a light one takes milliseconds."""
        if is_light:
            return work()
        async with self._turn.acquire(account):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _without_collector, work)

    def close(self) -> None:
        """Drop the waiting work; do not wait for what is running."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _without_collector(work: Callable[[], T]) -> T:
    """Run with the garbage collector off.

    It would scan all values repeatedly, stop every thread meanwhile, and find nothing: decoded
    JSON has no cycles.
    """
    gc.disable()
    try:
        return work()
    finally:
        gc.enable()
