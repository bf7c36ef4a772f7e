"""Memory that is given back when it is no longer needed, where the C library would keep it.

glibc raises its own bound for blocks that go straight back to the system as soon as it has seen a larger
one; after a few megabytes of input the heap then stays as large as its worst moment. Nothing but that.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE_BYTES = 64 * 1024
ARENAS = 2


def give_back() -> bool:
    """Fix that bound for this process; False where there is none. Call it before threads start."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    options = (
        (M_MMAP_THRESHOLD, LARGE_BYTES),
        (M_TRIM_THRESHOLD, LARGE_BYTES),
        (M_ARENA_MAX, ARENAS),
    )
    taken = [set_option(name, value) == 1 for name, value in options]
    return all(taken)
