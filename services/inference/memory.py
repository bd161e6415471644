"""How the process's allocator treats the large blocks that requests need."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Have large blocks returned to the system when they are freed (mallopt(3)).

    glibc learns from the first large block that is freed to keep the next ones for itself. Bodies
    that grow then leave gaps that nothing else fits, half as much as they take. Other allocators
    have no such setting.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
