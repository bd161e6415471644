"""Journal segments on disk: their format and their locks.

A segment is a file `<journal>-<first>.log`. `<journal>` is the UUID of one process run and
`<first>` the sequence of the file's first line, so even an empty segment shows how far its run got.
A line is the CRC-32 of the event in 8 hex digits, a space, the event's JSON and a newline.

The writer keeps an exclusive `flock` on its segments while it lives. A segment is created and
locked under a temporary name and only then renamed. So a visible file that can be locked belongs to
a dead run. This needs a local file system: NFS and FUSE do not guarantee such locks.
"""

import fcntl
import os
import re
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.inference.metering.journal.tail import Tail

SEGMENT_BYTES = 8 * 2**20

_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([0-9]{1,18})\.log")
_PREFIX_BYTES = 9
_NAMELESS_S = 60.0
"""A new segment gets its final name within moments; after this long its creator must be dead."""

log = structlog.get_logger()


def encode_line(event: bytes) -> bytes:
    """Return the line of an event."""
    return b"%08x %s\n" % (zlib.crc32(event), event)


def decode_line(line: bytes) -> bytes | None:
    """Return the event of a line (given without its newline), or None if the line is damaged."""
    event = event_in(line)
    return event if line[:_PREFIX_BYTES] == b"%08x " % zlib.crc32(event) else None


def event_in(line: bytes) -> bytes:
    """Return the event of a line that cannot be damaged, because it never left this process."""
    return line[_PREFIX_BYTES:]


@dataclass
class Segment:
    """A segment that this process has locked."""

    path: Path
    journal: str
    first: int
    """Sequence of the first line."""
    fd: int
    size: int = 0
    """Bytes that are durable."""
    lines: int = 0
    """Lines that are durable."""
    shipped: int = 0
    """Bytes that billing has acknowledged."""
    tail: Tail | None = None
    """Its last bytes, if this process writes it."""

    @property
    def is_in_memory(self) -> bool:
        """Whether everything unshipped is also in memory."""
        return self.tail is not None and self.tail.start <= self.shipped

    @property
    def last(self) -> int:
        """Sequence of the last durable line; `first - 1` if there is no line."""
        return self.first + self.lines - 1

    def read(self, *, max_lines: int, max_bytes: int, skip: int = 0) -> list[bytes]:
        """Return the next unshipped lines without their newlines, at least one if there is any.

        Args:
            skip: how many unshipped bytes to leave out; they end with a newline.

        Raises:
            OSError: they cannot be read, or have disappeared.
        """
        start = self.shipped + skip
        unread, length = self.size - start, min(self.size - start, max_bytes)
        chunk = self._read_durable(start, length)
        while b"\n" not in chunk and length < unread:  # one line longer than max_bytes
            length = min(2 * length, unread)
            chunk = self._read_durable(start, length)
        if b"\n" not in chunk and unread:
            raise OSError(f"{self.path.name} was truncated by another process")
        return chunk.split(b"\n")[:-1][:max_lines]

    def _read_durable(self, start: int, length: int) -> bytes:
        if self.tail is not None and self.is_in_memory:
            return self.tail.read(start, length)
        return os.pread(self.fd, length, start)

    def acknowledge(self, size: int) -> None:
        """Count the next `size` bytes as shipped."""
        self.shipped += size
        if self.tail is not None:
            self.tail.forget(self.shipped)

    def unshipped_lines(self) -> int:
        """Return how many lines billing has not acknowledged."""
        return os.pread(self.fd, self.size - self.shipped, self.shipped).count(b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes after the durable ones; they count only after `grow`.

        Raises:
            OSError: nothing was written.
            Damaged: the file may end in half a line; it must not be written to again.
        """
        length = len(data)
        try:
            written = os.pwrite(self.fd, data, self.size)
            while written < length:
                written += os.pwrite(self.fd, data[written:], self.size + written)
        except OSError:
            self.cut()
            raise

    def grow(self, data: bytes, *, lines: int) -> None:
        """Count written bytes as durable."""
        self.size += len(data)
        self.lines += lines
        if self.tail is not None:
            self.tail.add(data)

    def cut(self) -> None:
        """Truncate the file to its durable bytes.

        Raises:
            Damaged: that failed.
        """
        try:
            os.ftruncate(self.fd, self.size)
        except OSError as error:
            raise Damaged from error

    def delete(self) -> None:
        """Delete the segment: all of it has been shipped."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.fd)

    def release(self) -> None:
        """Unlock the file for the next process."""
        os.close(self.fd)


class Damaged(Exception):
    """It is no longer known where a segment's valid bytes end."""


def create(folder: Path, journal: str, first: int, *, sync: bool = False) -> Segment:
    """Create and lock a segment.

    Args:
        sync: make its name durable too.

    Raises:
        OSError: the folder cannot be written; nothing is left behind.
    """
    path = folder / f"{journal}-{first}.log"
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(
            fd, fcntl.LOCK_EX
        )  # another process that looks for dead files may lock it briefly
        temporary.rename(path)
        if sync:
            sync_folder(folder)
    except OSError:
        temporary.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        os.close(fd)
        raise
    return Segment(path=path, journal=journal, first=first, fd=fd, tail=Tail())


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def claim_dead(folder: Path, *, at_most: int = 64) -> list[list[Segment]]:
    """Lock the segments of dead runs; return a list per run, oldest line first.

    The number of runs is limited because each segment is an open file: a process that crashed all
    day leaves more files than one process may open.

    A torn last line is cut off, since its request was never answered. A run with a locked segment
    is alive or taken by another process, and is skipped. So is a run that cannot be read.

    Raises:
        OSError: the folder cannot be read.
    """
    runs: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            runs.setdefault(match[1], []).append((int(match[2]), path))
        elif path.suffix == ".new":
            _sweep(path)
    claimed: list[list[Segment]] = []
    for journal, parts in sorted(runs.items()):
        if len(claimed) >= at_most:
            break
        segments: list[Segment] = []
        try:
            for first, path in sorted(parts):
                fd = _lock(path)
                if fd is None:
                    break
                segments.append(_open_dead(path, journal, first, fd))
        except OSError as error:
            log.error("dead_run_read_failed", journal=journal, error=str(error))
        if len(segments) == len(parts):
            claimed.append(segments)
        else:
            for segment in segments:
                segment.release()
    return claimed


def _lock(path: Path) -> int | None:
    """Open and lock a file, unless it is locked or no longer has this name."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _sweep(path: Path) -> None:
    """Remove a segment whose creator died before renaming it."""
    with suppress(OSError):
        if (orphan := _lock(path)) is not None:
            if time.time() - os.fstat(orphan).st_mtime > _NAMELESS_S:
                path.unlink(missing_ok=True)
            os.close(orphan)


def _open_dead(path: Path, journal: str, first: int, fd: int) -> Segment:
    try:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(fd, whole)
    except OSError:
        os.close(fd)
        raise
    return Segment(path, journal, first, fd, size=whole, lines=data.count(b"\n"))
