"""Blocking calls off the event loop, bounded in number and in how long they are waited for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from services.common.model_store import StoreError

WAIT_FOR_A_TURN_S = 60.0

T = TypeVar("T")


class Blocking:
    """Runs calls to a store in threads of their own, a few at once.

    The threads are daemons, not the loop's pool: a store that hangs for ever must neither keep
    others waiting for a thread nor hold up the exit of the process.

    Args:
        at_once: calls that run at the same time; one that was given up counts until it ends.
        deadline_s: seconds after which a call is given up.
    """

    def __init__(self, *, at_once: int, deadline_s: float) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._deadline_s = deadline_s

    async def __call__(self, call: Callable[..., T], *args: Any) -> T:
        """The call's result.

        Raises:
            StoreError: it did not get its turn or did not end in time; or whatever it raises.
        """
        try:
            async with asyncio.timeout(WAIT_FOR_A_TURN_S):
                await self._turns.acquire()
            loop = asyncio.get_running_loop()
            outcome: asyncio.Future[T] = loop.create_future()
            threading.Thread(
                target=self._run, args=(loop, outcome, call, args), daemon=True, name="store"
            ).start()
            async with asyncio.timeout(self._deadline_s):
                return await outcome
        except TimeoutError as error:
            raise StoreError("The model store does not answer in time.") from error

    def _run(
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
        except Exception as error:  # handed over, whatever it is
            failure = error

        def settle() -> None:
            self._turns.release()
            if outcome.done():  # given up
                return
            if failure is not None:
                outcome.set_exception(failure)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # T, unless it failed

        with suppress(RuntimeError):  # the loop is closed: the process is on its way out
            loop.call_soon_threadsafe(settle)
