"""Folders and buckets by URL, as fsspec opens them; whatever goes wrong is a StoreError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from services.common.model_keys import create_file
from services.common.model_records import StoreError


def open_filesystem(url: str, *, read_only: bool = False) -> tuple[Any, str]:
    """The fsspec file system behind `url`, and the path in it; nothing is cached or shared.

    Args:
        read_only: ask for no more than that, where the store knows the difference.

    Raises:
        StoreError: the URL is not one that fsspec knows, or there are no credentials for it.
    """
    with translated_errors("open the store"):
        if url.startswith(("gs://", "gcs://")):
            from services.common.gcs import open_gcs  # a second of imports, for nothing elsewhere

            path = url.split("://", 1)[1].strip("/")
            if not path:
                raise ValueError("the URL names no bucket")
            return open_gcs(read_only=read_only), path
        filesystem, path = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        return filesystem, str(path).rstrip("/")


def create_object(filesystem: Any, path: str, content: bytes) -> bool:
    """Create a file whole or not at all; False if there is one."""
    if isinstance(filesystem, LocalFileSystem):
        return create_file(Path(path), content)
    try:
        filesystem.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    return True


@contextmanager
def translated_errors(doing: str) -> Iterator[None]:
    """Turn whatever a backend raises into a StoreError of one line.

    What that may be is open-ended (OSError, aiohttp's, google-auth's, gcsfs's own), hence
    `Exception`.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StoreError(f"Cannot {doing}: {' '.join(str(told).split())[:300]}.") from error
