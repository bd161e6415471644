"""How many predictions are answered at once: in all, and for one account."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.common.errors import Unavailable

SHARE = 4
"""One account may have a fourth of all seats, so that none can shut the others out."""


class Saturated(Unavailable):
    """Too much is being answered at once; nothing was predicted or billed."""

    code = "saturated"


class Seats:
    """Counts who is being answered.

    Args:
        total: predictions at once.
    """

    def __init__(self, total: int) -> None:
        self.taken = 0
        self._total = total
        self._share = max(1, total // SHARE)
        self._by_account: dict[str, int] = {}

    @contextmanager
    def taken_by(self, account: str) -> Iterator[None]:
        """Hold a seat while the block runs.

        Raises:
            Saturated: all are taken, or the account has its share.
        """
        own = self._by_account.get(account, 0)
        if self.taken >= self._total:
            raise Saturated("Too many predictions at once.")
        if own >= self._share:
            raise Saturated("Too many predictions at once for one account.")
        self.taken += 1
        self._by_account[account] = own + 1
        try:
            yield
        finally:
            self.taken -= 1
            left = self._by_account[account] - 1
            if left:
                self._by_account[account] = left
            else:
                del self._by_account[account]
