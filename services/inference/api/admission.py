"""Limits on concurrent requests and their memory, shared fairly between accounts.

Shares are not fixed. An account may take more as long as its total stays no larger than what
remains for everyone. A single account gets half, two get a third each, and however many accounts
are greedy, some capacity is left for the next.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from services.common.errors import Unavailable


class Saturated(Unavailable):
    """The service is at capacity for this account; nothing was predicted or billed."""

    code = "saturated"


def fits(amount: int, *, own: int, taken: int, total: int) -> bool:
    """Return whether an account may take `amount` more.

    Args:
        own: the account's part of what is `taken`; `taken` is part of the `total`.
    """
    left = total - taken - amount
    return left >= 0 and (own == 0 or own + amount <= left)


class _SharedPool:
    """A capacity shared by accounts."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._by_account: dict[str, int] = {}

    def acquire(self, account: str, amount: int, *, without: int = 0) -> bool:
        """Take an amount if it fits, not counting `without` of what the account already has."""
        own = self._by_account.get(account, 0)
        if not fits(amount, own=own - without, taken=self.taken, total=self.total):
            return False
        self.taken += amount
        self._by_account[account] = own + amount
        return True

    def release(self, account: str, amount: int) -> None:
        """Give back an amount."""
        self.taken -= amount
        own = self._by_account.get(account, 0) - amount
        if own:
            self._by_account[account] = own
        else:
            self._by_account.pop(account, None)


class ConcurrencyLimiter:
    """Limits how many complete requests are in progress.

    Args:
        total: maximum requests at once.
    """

    def __init__(self, total: int) -> None:
        self._pool = _SharedPool(total)

    @property
    def taken(self) -> int:
        """How many requests are in progress."""
        return self._pool.taken

    @contextmanager
    def acquire(self, account: str) -> Iterator[None]:
        """Occupy a slot while the block runs.

        Raises:
            Saturated: no slot is free for this account.
        """
        if not self._pool.acquire(account, 1):
            raise Saturated("Too many predictions in progress; retry in 1 s.")
        try:
            yield
        finally:
            self._pool.release(account, 1)


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
