"""Tune the memory allocator for the large blocks that requests need."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Return large blocks to the system when they are freed (mallopt(3)).

    After the first large block is freed, glibc keeps later ones in its heap by default. Growing
    request bodies then leave gaps that cannot be reused, half as large as the bodies themselves.
    Other allocators do not have this setting.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
