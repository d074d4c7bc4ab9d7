"""How the C library keeps the memory that torch has freed on a CPU."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
KEPT_BYTES = 2**31 - 1  # most that `mallopt` takes
USERS_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks of freed memory, up to 2 GiB, instead of returning them to the system.

    An update frees the activations of each layer, and the next one asks for as much again. By default glibc returns
    such blocks, and the system must then clear every page anew: 4 to 8% of an update's time at 4x256. Nothing happens
    with another C library, or where the environment has settings for glibc's allocator.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in USERS_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(key, KEPT_BYTES) for key in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))
