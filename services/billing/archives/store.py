"""The folder or bucket of archives: files that are created once and read as a whole. Blocking."""

import hashlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from services.billing.archives.errors import (
    ArchiveDamaged,
    ArchiveUnreachable,
)
from services.billing.archives.models import ArchivePart

NO_ARCHIVE = "none"
"""The URL of a store that does not exist."""
_FOLDER = "usage"


def is_installed() -> bool:
    """Return whether what writes and reads archives is installed."""
    return find_spec("duckdb") is not None and find_spec("fsspec") is not None


class ArchiveStore:
    """The files of archived months, each in its month's folder.

    Args:
        url: an fsspec URL, or the path of a folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def create(self, period: str, name: str, content: bytes) -> None:
        """Create a file, which is visible at once and as a whole.

        Raises:
            ArchiveUnreachable: it could not be created.
        """
        from registry.records import StoreError
        from registry.storage.filesystems import create_object, translated_errors

        try:
            filesystem, root = self._opened
            with translated_errors(f"write to the archive of {period}"):
                is_new = create_object(filesystem, f"{root}/{_FOLDER}/{period}/{name}", content)
        except StoreError as error:
            raise ArchiveUnreachable(str(error)) from error
        if not is_new:
            raise ArchiveUnreachable(f"Cannot write to the archive of {period}: the file exists.")

    def fetch(self, part: ArchivePart, folder: Path) -> Path:
        """Copy a file into a folder, after comparing it with what was recorded of it.

        Raises:
            ArchiveDamaged: it is missing or has been changed.
            ArchiveUnreachable: the folder or bucket cannot be used.
        """
        content = self._read(part)
        if content is None:
            raise ArchiveDamaged(part.period, part.part, "is missing")
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise ArchiveDamaged(part.period, part.part, "is damaged")
        path = folder / f"{part.period}-{part.part}.parquet"
        path.write_bytes(content)
        return path

    def _read(self, part: ArchivePart) -> bytes | None:
        from registry.records import StoreError
        from registry.storage.filesystems import translated_errors

        try:
            filesystem, root = self._opened
            with translated_errors(f"read the archive of {part.period}"):
                try:
                    return bytes(filesystem.cat_file(f"{root}/{_FOLDER}/{part.period}/{part.name}"))
                except (FileNotFoundError, IsADirectoryError):
                    return None
        except StoreError as error:
            raise ArchiveUnreachable(str(error)) from error

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system and the path in it; opened when needed, so after a fork."""
        if self.url == NO_ARCHIVE:
            raise ArchiveUnreachable("BILLING_ARCHIVE is 'none': no place for archived months.")
        from registry.storage.filesystems import open_filesystem

        return open_filesystem(self.url)
