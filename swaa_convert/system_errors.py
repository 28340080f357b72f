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
    errno.ENOTDIR: "choose another folder",
    errno.ELOOP: "give the folder itself",
    errno.EMFILE: "lift the limit (ulimit -n)",
}


@contextmanager
def one_line_errors(done: str = "") -> Iterator[None]:
    """Turn an OSError into one line; `done` says in what state it left things."""
    try:
        yield
    except OSError as error:
        raise SwaaError(describe(error, done)) from error


def describe(error: OSError, done: str = "") -> str:
    """The file, what is wrong, the state that things are in and the way out."""
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    parts = (done, _WAYS_OUT.get(error.errno or 0, ""))
    return f"{where}{what}" + "".join(f": {part}" for part in parts if part)
