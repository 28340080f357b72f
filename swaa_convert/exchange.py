"""Two folders change places in one step, so that one of them stands there at every moment."""

import os
import sys
from pathlib import Path

# linux/fs.h and macOS's stdio.h happen to agree on the flag.
_SWAP = 2
_HERE = -100


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders of one file system; False, and nothing done, where the system cannot."""
    if sys.platform not in ("linux", "darwin"):
        return False
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            return bool(system.renamex_np(names[0], names[1], _SWAP) == 0)
        return bool(system.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0)
    except AttributeError:
        # A C library from before it had the call.
        return False
