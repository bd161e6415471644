"""Usage that billing will not take: kept in a file, for a person to look at and to send again.

One JSON object a line: `reason`; `arrived`, whether billing has counted the event's number; and
`event`, the CloudEvent as it was sent, or the journal's line where that was damaged. Writers and
`tollgate billing replay` hold a lock on the folder, since the latter takes lines out.
"""

import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

FILE_NAME = "dead-letters.ndjson"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that was turned away, and why."""

    event: bytes
    reason: str
    arrived: bool
    """Whether its number counts as received; a batch refused as a whole was not looked at."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A line of the file."""

    line: bytes
    event: bytes | None
    """What to send again; None if it is no event."""


def append(folder: Path, refusals: Collection[Refusal]) -> None:
    """Keep what was turned away, all of it or, if that fails, nothing. Call it in a thread.

    Raises:
        OSError: it could not be kept.
    """
    lines = b"".join(_line(refusal) for refusal in refusals)
    with _alone(folder), (folder / FILE_NAME).open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def read(folder: Path) -> list[Letter]:
    """All that is kept, in the order it came."""
    with _alone(folder):
        return [Letter(line, _event(line)) for line in _lines(folder)]


def forget(folder: Path, lines: Collection[bytes]) -> None:
    """Take lines out of the file, whatever has been appended meanwhile.

    Raises:
        OSError: they are still there.
    """
    with _alone(folder):
        kept = [line for line in _lines(folder) if line not in lines]
        path = folder / FILE_NAME
        if not kept:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_suffix(".kept")
        with temporary.open("wb") as file:
            file.write(b"\n".join(kept) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _line(refusal: Refusal) -> bytes:
    entry = {
        "reason": refusal.reason,
        "arrived": refusal.arrived,
        "event": refusal.event.decode("utf-8", "backslashreplace"),
    }
    return orjson.dumps(entry) + b"\n"


def _event(line: bytes) -> bytes | None:
    """The event to send again.

    Without its place in the journal if that was counted when it was turned away: what a number
    costs a prepaid slice was settled then, so the event must be charged like one without a number.
    """
    try:
        letter = orjson.loads(line)
        event = orjson.loads(letter["event"])
        arrived = bool(letter["arrived"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    if not isinstance(event, dict):
        return None
    if arrived:
        event = {name: value for name, value in event.items() if name not in _PLACE}
    return orjson.dumps(event)


_PLACE = {"journal", "sequence"}


def _lines(folder: Path) -> list[bytes]:
    try:
        return [line for line in (folder / FILE_NAME).read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
