"""Taking memory quickly, and giving it back as soon as a merge is done with it."""

import contextlib
import ctypes
import os
import sys

_MMAP_THRESHOLD = -3
_LARGE = 1024**2


def return_large_blocks() -> None:
    """Have the C library hand large blocks back to the system when they are freed.

    glibc keeps blocks of up to 32 MB for later, and a few hundred megabytes come together in this way.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def use_huge_pages() -> None:
    """Have torch ask for memory in huge pages: taking it page by page takes longer than merging in it.

    torch looks at this once, when it first needs memory.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
