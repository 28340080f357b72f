"""What the system refuses (a full disk, a folder without permission), said in one line with the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from swaa_convert.errors import SwaaError

_WAYS_OUT = {
    errno.ENOSPC: "free some space or choose another --out",
    errno.EDQUOT: "free some of your quota or choose another --out",
    errno.EFBIG: "lift the limit (ulimit -f), or choose another file system",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "ask for access, or choose another folder",
    errno.EPERM: "ask for access, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "see whether it is still there, or choose another folder",
    errno.EEXIST: "choose another folder",
    errno.ENOTDIR: "choose another folder",
    errno.EIO: "the disk or the network drive fails: check it, or choose another",
    errno.ESTALE: "mount the network drive again",
    errno.ELOOP: "give the folder itself",
    errno.EMFILE: "lift the limit (ulimit -n)",
}
_OTHERWISE = "see what is wrong with that place, or choose another"


@contextmanager
def one_line_errors(done: str = "") -> Iterator[None]:
    """Turn an OSError into one line; `done` says in what state it left things."""
    try:
        yield
    except OSError as error:
        raise SwaaError(describe(error, done)) from error


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Have an OSError name the file that is read or written inside: the system does so only when one is opened."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def describe(error: OSError, done: str = "") -> str:
    """The file, what is wrong, the state that things are in and the way out."""
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    parts = (done, _WAYS_OUT.get(error.errno or 0, _OTHERWISE if error.errno else ""))
    return f"{where}{what}" + "".join(f": {part}" for part in parts if part)
