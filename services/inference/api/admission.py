"""Limits on concurrent requests and their memory, shared fairly between accounts.

Shares are not fixed. An account may take more as long as its total stays no larger than what
remains for everyone. A single account gets half, two get a third each, and however many accounts
are greedy, some capacity is left for the next.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from services.common.errors import Unavailable

MIN_IN_PROGRESS = 32
"""How many requests to even the slowest model may be in progress."""
_PACE_S = 1.0
"""For how long the end of a request counts in full for the pace of its kind."""


class Saturated(Unavailable):
    """The service is at capacity for this account; nothing was predicted or billed."""

    code = "saturated"


def fits(amount: int, *, own: int, taken: int, total: float) -> bool:
    """Return whether an account may take `amount` more.

    Args:
        own: the account's part of what is `taken`; `taken` is part of the `total`.
    """
    left = total - taken - amount
    return left >= 0 and (own == 0 or own + amount <= left)


class _SharedPool:
    """A capacity shared by accounts."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.taken = 0
        self._by_account: dict[str, int] = {}

    def has_room(self, account: str, amount: int, *, without: int = 0) -> bool:
        """Return whether an amount fits, not counting `without` of what the account already has."""
        own = self._by_account.get(account, 0)
        return fits(amount, own=own - without, taken=self.taken, total=self.total)

    def acquire(self, account: str, amount: int, *, without: int = 0) -> bool:
        """Take an amount if it fits."""
        if not self.has_room(account, amount, without=without):
            return False
        self.take(account, amount)
        return True

    def take(self, account: str, amount: int) -> None:
        """Take an amount that is known to fit."""
        self.taken += amount
        self._by_account[account] = self._by_account.get(account, 0) + amount

    def release(self, account: str, amount: int) -> None:
        """Give back an amount."""
        self.taken -= amount
        own = self._by_account.get(account, 0) - amount
        if own:
            self._by_account[account] = own
        else:
            self._by_account.pop(account, None)


class _Queue:
    """The requests of one kind that are in progress, and how many of them ended lately."""

    def __init__(self, now: float) -> None:
        self.pool = _SharedPool(0)
        self._since = now
        self._ended = 0.0

    def note_end(self, now: float) -> None:
        """Count a request that ended; what is older than a moment counts for less and less."""
        self._ended += 1
        elapsed_s = now - self._since
        if elapsed_s > _PACE_S:
            self._since += elapsed_s / 2
            self._ended /= 2

    def room(self, now: float, *, within_s: float) -> float:
        """Return how many requests can be answered within some seconds at the latest pace."""
        elapsed_s = now - self._since
        if not self._ended or elapsed_s <= 0:
            return math.inf
        return max(MIN_IN_PROGRESS, within_s * self._ended / elapsed_s)


class ConcurrencyLimiter:
    """Limits how many complete requests are in progress, and how long the last of them waits.

    The same number of requests is a short queue for a quick model and a long one for a slow model.
    So the requests of each kind are also limited to what can be answered within `max_wait_s` at
    the pace of the last ones, which is Little's law, though never to less than `MIN_IN_PROGRESS`.

    Args:
        total: maximum requests at once.
        max_wait_s: how long the last one may have to wait, in seconds.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        max_wait_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = _SharedPool(total)
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._queues: dict[Hashable, _Queue] = {}

    @property
    def taken(self) -> int:
        """How many requests are in progress."""
        return self._pool.taken

    def check(self, account: str, *, kind: Hashable) -> None:
        """Check that a slot is free for a request.

        Args:
            kind: what takes about as long as the request, such as predictions of one model.

        Raises:
            Saturated: no slot is free for this account.
        """
        pools, queue = [self._pool], self._queues.get(kind)
        if queue is not None:
            room = queue.room(self._clock(), within_s=self._max_wait_s)
            queue.pool.total = min(self._pool.total, room)
            pools.append(queue.pool)
        if not all(pool.has_room(account, 1) for pool in pools):
            raise Saturated("Too many predictions in progress; retry in 1 s.")

    @contextmanager
    def acquire(self, account: str, *, kind: Hashable) -> Iterator[None]:
        """Occupy a slot while the block runs; arguments and errors are those of `check`."""
        self.check(account, kind=kind)
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = _Queue(self._clock())
        pools = (queue.pool, self._pool)
        for pool in pools:
            pool.take(account, 1)
        try:
            yield
        finally:
            for pool in pools:
                pool.release(account, 1)
            queue.note_end(self._clock())
            if not queue.pool.taken:
                del self._queues[kind]


class FairSlots:
    """Lets a few callers in at once; the others wait, and their accounts take turns.

    However many callers an account has waiting, the others are not behind all of them.

    Args:
        total: maximum callers at once.
    """

    def __init__(self, total: int) -> None:
        self._pool = _SharedPool(total)
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def acquire(self, account: str) -> AsyncIterator[None]:
        """Occupy a slot while the block runs; wait if no slot is free for this account."""
        if not self._pool.acquire(account, 1):
            await self._wait(account)
        try:
            yield
        finally:
            self._give_back(account)

    async def _wait(self, account: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(account)  # the slot had just been passed to this caller
            raise

    def _give_back(self, account: str) -> None:
        self._pool.release(account, 1)
        for waiting in list(self._waiting):
            self._pass_on(waiting)

    def _pass_on(self, account: str) -> None:
        """Give an account's next caller a slot if there is one for it."""
        turns = self._waiting[account]
        while turns and turns[0].done():  # it gave up
            turns.popleft()
        if turns and self._pool.acquire(account, 1):
            turns.popleft().set_result(None)
            self._waiting.move_to_end(account)  # behind the other accounts
        if not turns:
            del self._waiting[account]


class MemoryLimiter:
    """Limits how many bytes requests keep in memory, complete or not.

    Args:
        total: maximum bytes at once.
    """

    def __init__(self, total: int) -> None:
        self._pool = _SharedPool(total)

    @property
    def taken(self) -> int:
        """How many bytes requests keep in memory."""
        return self._pool.taken

    def reserve(self, account: str) -> "MemoryReservation":
        """Return a context manager that counts the bytes of one request."""
        return MemoryReservation(self._pool, account)


class MemoryReservation:
    """The bytes of one request, released when its `with` block ends."""

    __slots__ = ("_account", "_pool", "size")

    def __init__(self, pool: _SharedPool, account: str) -> None:
        self._pool = pool
        self._account = account
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.release(self._account, self.size)

    def grow(self, size: int, *, is_complete: bool = False) -> None:
        """Count more bytes.

        Args:
            is_complete: whether the whole request has arrived, so that it will end soon. If its
                account has no other, it may then take everything that is left, because some
                requests need more than a share.

        Raises:
            Saturated: the bytes do not fit right now.
        """
        without = self.size if is_complete else 0
        if not self._pool.acquire(self._account, size, without=without):
            raise Saturated("Requests use too much memory; retry in 1 s.")
        self.size += size
