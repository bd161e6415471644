"""What requests may take at once, in all and for each account: slots, and bytes of memory.

Shares are not fixed. An account may take more as long as what it then has is no more than what is
left for everyone. One account alone gets half, two get a third each, and however many are greedy,
something is left for the next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from services.common.errors import Unavailable


class Saturated(Unavailable):
    """Too much is being answered at once; nothing was predicted or billed."""

    code = "saturated"


def fits(amount: int, *, own: int, taken: int, total: int) -> bool:
    """Return whether an account may take `amount` more.

    Args:
        own: what the account has of what is `taken`, which is part of the `total`.
    """
    left = total - taken - amount
    return left >= 0 and (own == 0 or own + amount <= left)


class _Shares:
    """Counts what is taken, by account."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._by_account: dict[str, int] = {}

    def take(self, account: str, amount: int, *, without: int = 0) -> bool:
        """Take an amount if it fits, as if the account had so much less."""
        own = self._by_account.get(account, 0)
        if not fits(amount, own=own - without, taken=self.taken, total=self.total):
            return False
        self.taken += amount
        self._by_account[account] = own + amount
        return True

    def give_back(self, account: str, amount: int) -> None:
        """Give back what was taken."""
        self.taken -= amount
        own = self._by_account.get(account, 0) - amount
        if own:
            self._by_account[account] = own
        else:
            self._by_account.pop(account, None)


class ConcurrencyLimiter:
    """Counts complete requests that are being answered.

    Args:
        total: requests at once.
    """

    def __init__(self, total: int) -> None:
        self._shares = _Shares(total)

    @property
    def taken(self) -> int:
        """How many requests are being answered."""
        return self._shares.taken

    @contextmanager
    def acquire(self, account: str) -> Iterator[None]:
        """Have a slot while the block runs.

        Raises:
            Saturated: no slot is free for this account.
        """
        if not self._shares.take(account, 1):
            raise Saturated("Too many predictions at once; retry in 1 s.")
        try:
            yield
        finally:
            self._shares.give_back(account, 1)


class MemoryLimiter:
    """Counts the bytes that requests keep in memory, complete or not.

    Args:
        total: bytes at once.
    """

    def __init__(self, total: int) -> None:
        self._shares = _Shares(total)

    @property
    def taken(self) -> int:
        """How many bytes requests keep."""
        return self._shares.taken

    def hold(self, account: str) -> "Held":
        """Return a context in which the bytes of one request are counted."""
        return Held(self._shares, account)


class Held:
    """The bytes that one request keeps, until its `with` block ends."""

    __slots__ = ("_account", "_shares", "size")

    def __init__(self, shares: _Shares, account: str) -> None:
        self._shares = shares
        self._account = account
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shares.give_back(self._account, self.size)

    def grow(self, size: int, *, is_complete: bool = False) -> None:
        """Count more bytes.

        Args:
            is_complete: the request has come whole, so that it is over soon. If its account has
                no other, it may then take all that is left: some need more than a share.

        Raises:
            Saturated: they do not fit now.
        """
        without = self.size if is_complete else 0
        if not self._shares.take(self._account, size, without=without):
            raise Saturated("Too many bytes of requests at once; retry in 1 s.")
        self.size += size
