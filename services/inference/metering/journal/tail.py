"""The last writes of this process to a segment, kept in memory to be shipped from there."""

from collections import deque

MAX_BYTES = 8 * 2**20


class Tail:
    """The end of a segment: everything from the offset `start` on.

    Args:
        max_bytes: limit of the bytes kept; the oldest writes are forgotten first.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._writes: deque[bytes] = deque()
        self._size = 0
        self.start = 0

    def add(self, data: bytes) -> None:
        """Keep the next write."""
        self._writes.append(data)
        self._size += len(data)
        while self._size > self._max_bytes:
            self._forget_oldest()

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from an offset in the segment, not before `start`."""
        skipped, found, left = offset - self.start, [], length
        for data in self._writes:
            if skipped >= len(data):
                skipped -= len(data)
                continue
            found.append(data[skipped : skipped + left])
            left -= len(found[-1])
            skipped = 0
            if not left:
                break
        return b"".join(found)

    def forget(self, offset: int) -> None:
        """Forget the writes that end at or before an offset."""
        while self._writes and self.start + len(self._writes[0]) <= offset:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        data = self._writes.popleft()
        self.start += len(data)
        self._size -= len(data)
