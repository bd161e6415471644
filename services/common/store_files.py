"""The files of a store at an fsspec URL: listed, read whole or in part, created once.

What a backend raises comes out as StoreError; a file that does not exist is None, a folder that
does not exist is empty.
"""

from typing import Any

from services.common.filesystems import create_object, open_filesystem, translated_errors
from services.common.model_records import VersionRefused

RECORD_BYTES = 64 << 20
"""More than any manifest or release record has; what is cut off there does not hold."""


class StoreFiles:
    """Base of a store: the calls to its file system. They block."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._fs, self._root = open_filesystem(url, read_only=read_only)

    def _list(self, folder: str, doing: str) -> list[dict[str, Any]]:
        with translated_errors(doing):
            try:
                return list(self._fs.ls(folder, detail=True))
            except FileNotFoundError:
                return []

    def _find(self, folder: str, doing: str) -> list[str]:
        """The files at any depth, as paths in the folder, sorted."""
        with translated_errors(doing):
            paths = self._fs.find(folder, on_error=_raise_unless_missing)
        return sorted(path.removeprefix(f"{folder}/") for path in paths)

    def _read(self, path: str, what: str, *, limit: int = RECORD_BYTES) -> bytes | None:
        """The first `limit` bytes of a file, or None if there is none."""
        with translated_errors(f"read {what}"):
            try:
                return bytes(self._fs.cat_file(path, start=0, end=limit))
            except FileNotFoundError:
                return None
            except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
                # This one path is spoilt; other faults are the store's, and may pass.
                raise VersionRefused(f"Cannot read {what}.", reason="unreadable") from error

    def _create(self, path: str, content: bytes, what: str) -> bool:
        """Create a file that must not exist; True if these very bytes are there afterwards.

        A file found there with our bytes is ours, by a first try whose answer was lost.
        """
        with translated_errors(f"write {what}"):
            if create_object(self._fs, path, content):
                return True
        return self._read(path, what) == content


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
