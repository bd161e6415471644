"""Where a request's body is decoded: a small one in place, a large one in a thread of its own.

One large body is decoded at a time, so that the memory this takes is bounded; accounts take turns.
"""

import asyncio
import gc
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from services.inference.protocols.json_body import WHOLE_BYTES

T = TypeVar("T")


class Turns:
    """Lets one caller in at a time; accounts that wait take turns, whatever each has waiting."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def wait_for_turn(self, account: str) -> AsyncIterator[None]:
        """Run the block alone."""
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
                self._pass_on()  # it had just been given the turn
            raise

    def _pass_on(self) -> None:
        self._busy = False
        while self._waiting:
            account, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[account] = turns  # at the end
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return


class Decoder:
    """Owns the thread in which large bodies are decoded."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def run(self, work: Callable[[], T], *, size: int, account: str) -> T:
        """Return what `work` returns for a body of `size` bytes, or raise what it raises."""
        if size <= WHOLE_BYTES:
            return work()
        async with self._turns.wait_for_turn(account):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _without_collector, work)

    def close(self) -> None:
        """Start nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _without_collector(work: Callable[[], T]) -> T:
    """Run without the garbage collector, which would go through all values again and again.

    It stops every thread meanwhile, and finds nothing: the values of a JSON text have no cycles.
    """
    gc.disable()
    try:
        return work()
    finally:
        gc.enable()
