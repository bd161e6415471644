"""Dead letters: usage events that billing will not take, kept in a file for an operator to replay.

Each line is a JSON object: `reason`; `arrived`, whether billing has counted the event's sequence as
received; and `event`, the CloudEvent as it was sent or, if that was damaged, the journal's line.
Writers and `tollgate billing replay` lock the folder, because a replay removes lines.
"""

import errno
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import orjson

from registry.storage.local import locked, replace_file

FILE_NAME = "dead-letters.ndjson"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that billing refused, and why."""

    event: bytes
    reason: str
    arrived: bool
    """Whether its sequence counts as received: not if the whole batch was refused."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One line of the file."""

    line: bytes
    event: bytes | None
    """The event to send again; None if the line does not contain one."""


def append(folder: Path, refusals: Collection[Refusal]) -> None:
    """Append refused events: all of them or, on failure, none. This blocks; call it in a thread.

    Raises:
        OSError: they could not be written.
    """
    lines = b"".join(_line(refusal) for refusal in refusals)
    with locked(folder), (folder / FILE_NAME).open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def read(folder: Path) -> list[DeadLetter]:
    """Return all dead letters, oldest first."""
    with locked(folder):
        return [DeadLetter(line, _event(line)) for line in _lines(folder)]


def remove(folder: Path, lines: Collection[bytes]) -> None:
    """Remove lines from the file, and keep those appended in the meantime.

    Raises:
        OSError: the file is unchanged.
    """
    with locked(folder):
        kept = [line for line in _lines(folder) if line not in lines]
        path = folder / FILE_NAME
        if not kept:
            path.unlink(missing_ok=True)
            return
        replace_file(path, b"\n".join(kept) + b"\n", mode=0o600)


def _line(refusal: Refusal) -> bytes:
    entry = {
        "reason": refusal.reason,
        "arrived": refusal.arrived,
        "event": refusal.event.decode("utf-8", "backslashreplace"),
    }
    return orjson.dumps(entry) + b"\n"


def _event(line: bytes) -> bytes | None:
    """Return the event of a line as it is to be sent again.

    If its sequence was counted when it was refused, its amount was settled against the credit
    reservation then. Such an event is sent without journal and sequence, so that it is charged to
    the account instead.
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
        event = {name: value for name, value in event.items() if name not in _POSITION}
    return orjson.dumps(event)


_POSITION = {"journal", "sequence"}


def _lines(folder: Path) -> list[bytes]:
    try:
        return [line for line in (folder / FILE_NAME).read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []
