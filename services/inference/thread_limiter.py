"""Run blocking calls in threads, limited in number and in time."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from registry.records import StoreError

QUEUE_DEADLINE_S = 60.0

T = TypeVar("T")


class ThreadLimiter:
    """Runs calls to a store in their own threads, a few at a time.

    The threads are daemons instead of the event loop's pool, because a store that hangs must not
    use up the pool or delay the exit of the process.

    Args:
        at_once: maximum calls at a time; a call that timed out counts until it ends.
        deadline_s: seconds after which a call times out.
    """

    def __init__(self, *, at_once: int, deadline_s: float) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._deadline_s = deadline_s

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Run a call in a thread, and return its result or raise its exception.

        Raises:
            StoreError: the call did not start or did not finish in time.
        """
        try:
            async with asyncio.timeout(QUEUE_DEADLINE_S):
                await self._slots.acquire()
            loop = asyncio.get_running_loop()
            outcome: asyncio.Future[T] = loop.create_future()
            threading.Thread(
                target=self._run_in_thread,
                args=(loop, outcome, call, args),
                daemon=True,
                name="store",
            ).start()
            async with asyncio.timeout(self._deadline_s):
                return await outcome
        except TimeoutError as error:
            raise StoreError("The model store did not respond in time.") from error

    def _run_in_thread(
        self,
        loop: asyncio.AbstractEventLoop,
        outcome: "asyncio.Future[T]",
        call: Callable[..., T],
        args: tuple[Any, ...],
    ) -> None:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = call(*args)
        except Exception as error:  # passed on to the caller
            failure = error

        def settle() -> None:
            self._slots.release()
            if outcome.done():  # timed out
                return
            if failure is not None:
                outcome.set_exception(failure)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # T, unless it failed

        with suppress(RuntimeError):  # the loop is closed because the process is exiting
            loop.call_soon_threadsafe(settle)
