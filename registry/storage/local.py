"""Write files atomically, and lock folders across processes."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def create_file(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Create `path` atomically, with its folder; return False if it already exists.

    Hard-linking a finished file is the only way to be both exclusive and never half-written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _write_draft(path, content, mode=mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` atomically: readers see the old content or the new, never a part."""
    _write_draft(path, content, mode=mode).replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder across processes for the duration of the block, waiting for the lock."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_draft(path: Path, content: bytes, *, mode: int) -> Path:
    """Write a complete file beside `path` under a temporary name."""
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
