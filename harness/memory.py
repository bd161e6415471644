"""Files in memory, for databases that no machine's failure tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
"""Where Linux has a file system in memory."""
ROOM_BYTES = 1 << 30


@contextmanager
def folder_for_sqlite() -> Iterator[Path]:
    """Yield a folder that is gone after the block, in memory if there is room.

    SQLite syncs every commit, which takes a disk milliseconds, and a test commits some thirty
    times.
    """
    is_roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(
        prefix="tollgate-db-", dir=MEMORY if is_roomy else None, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
