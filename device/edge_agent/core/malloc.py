"""Make the C library return the memory of large requests to the system as soon as it is freed.

By default, glibc raises the size from which it allocates blocks separately (M_MMAP_THRESHOLD) when such a block is
freed, up to 32 MB. Later blocks then come from its heap, which it can rarely shrink, so the memory of a process stays
at its peak. With fixed values, glibc keeps this behaviour off (mallopt(3)).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
BLOCK_BYTES = 1 << 17  # the initial value of glibc


def return_freed_memory() -> None:
    """Set fixed thresholds for the rest of the process. Without glibc (for example with musl), nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES)
