"""Open folders and buckets by URL with fsspec; every failure is a StoreError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from registry.records import StoreError
from registry.storage.local import create_file


def open_filesystem(url: str, *, read_only: bool = False) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path in it; nothing is cached or shared.

    Args:
        read_only: request read-only access if the store distinguishes it.

    Raises:
        StoreError: fsspec does not support the URL, or there are no credentials for it.
    """
    with translated_errors("open the store"):
        if url.startswith(("gs://", "gcs://")):
            from registry.storage.gcs import open_gcs  # takes a second to import

            path = url.split("://", 1)[1].strip("/")
            if not path:
                raise ValueError("the URL has no bucket")
            return open_gcs(read_only=read_only), path
        filesystem, path = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        return filesystem, str(path).rstrip("/")


def create_object(filesystem: Any, path: str, content: bytes) -> bool:
    """Create a file atomically; return False if it already exists."""
    if isinstance(filesystem, LocalFileSystem):
        return create_file(Path(path), content)
    try:
        filesystem.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    return True


@contextmanager
def translated_errors(doing: str) -> Iterator[None]:
    """Turn any error of a backend into a one-line StoreError.

    It catches `Exception` because backends raise OSError and the errors of aiohttp, google-auth
    and gcsfs.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StoreError(f"Cannot {doing}: {' '.join(str(reason).split())[:300]}.") from error
