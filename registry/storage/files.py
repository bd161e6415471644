"""The files of a store at an fsspec URL: list, read in whole or in part, create once.

Backend errors are raised as StoreError. A missing file reads as None, a missing folder as empty.
"""

from typing import Any

from registry.records import VersionRefused
from registry.storage.filesystems import create_object, open_filesystem, translated_errors

RECORD_BYTES = 64 << 20
"""Larger than any manifest or release record; a longer file is cut off and so becomes invalid."""


class StoreFiles:
    """Base class of a store, with its blocking file system calls."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._fs, self._root = open_filesystem(url, read_only=read_only)

    def _list(self, folder: str, doing: str) -> list[dict[str, Any]]:
        with translated_errors(doing):
            try:
                return list(self._fs.ls(folder, detail=True))
            except FileNotFoundError:
                return []

    def _find(self, folder: str, doing: str) -> list[str]:
        """Return all files at any depth, as sorted paths relative to the folder."""
        with translated_errors(doing):
            paths = self._fs.find(folder, on_error=_raise_unless_missing)
        return sorted(path.removeprefix(f"{folder}/") for path in paths)

    def _read(self, path: str, what: str, *, limit: int = RECORD_BYTES) -> bytes | None:
        """Return the first `limit` bytes of a file, or None if the file does not exist."""
        with translated_errors(f"read {what}"):
            try:
                return bytes(self._fs.cat_file(path, start=0, end=limit))
            except FileNotFoundError:
                return None
            except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
                # Only this path is broken. Other errors concern the whole store and may be
                # temporary.
                raise VersionRefused(f"Cannot read {what}.", reason="unreadable") from error

    def _create(self, path: str, content: bytes, what: str) -> bool:
        """Create a file; return whether it now contains exactly these bytes.

        An existing file with the same bytes was written by an attempt whose response was lost.
        """
        with translated_errors(f"write {what}"):
            if create_object(self._fs, path, content):
                return True
        return self._read(path, what) == content


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
