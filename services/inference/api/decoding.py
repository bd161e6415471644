"""Decode request bodies: small ones on the event loop, large ones in a thread.

Only one large body is decoded at a time, to bound the memory it takes. Waiting accounts take turns.
"""

import asyncio
import gc
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from services.inference.api.json_body import WHOLE_BYTES

T = TypeVar("T")


class FairLock:
    """A lock that waiting accounts take in turns, however many callers each has waiting."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def acquire(self, account: str) -> AsyncIterator[None]:
        """Hold the lock while the block runs."""
        if self._busy:
            await self._wait(account)
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, account: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the lock had just been passed to this caller
            raise

    def _pass_on(self) -> None:
        self._busy = False
        while self._waiting:
            account, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[account] = turns  # behind the other accounts
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return


class Decoder:
    """Owns the thread in which large bodies are decoded."""

    def __init__(self) -> None:
        self._lock = FairLock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def run(self, work: Callable[[], T], *, size: int, account: str) -> T:
        """Return the result of `work`, which decodes a body of `size` bytes."""
        if size <= WHOLE_BYTES:
            return work()
        async with self._lock.acquire(account):
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
