"""Write files atomically, and lock folders across processes."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def create_file(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Create `path` atomically, with its folder; return False if it already exists.

    Hard-linking a finished file is the only way to be both exclusive and never half-written. Once
    this returns, the file outlives a crash of the machine.
    """
    _make_folder(path.parent)
    draft = _write_draft(path, content, mode=mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)
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


def _make_folder(folder: Path) -> None:
    """Create a folder and those that it is in, unless they exist."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk; syncing a file does not.

    Some file systems, such as shared folders of virtual machines, cannot do that.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
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
