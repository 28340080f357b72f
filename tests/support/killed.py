"""A conversion that is killed: `python -m tests.support.killed LINE COMMAND SOURCE OUT`.

It counts the lines of Python that run in the files that write, from the moment a folder beside the target is made,
and kills itself before line LINE. Line 0 kills nothing and prints how many lines there were.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import swaa_convert.staging
from swaa_convert import convert, copying, exchange, hashing, leftovers, manifest, refresh
from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from swaa_convert.refresh import refresh_code

COMMANDS = ("plain", "link", "force", "force-in-two-steps", "refresh", "refresh-in-two-steps")
_MODULES = (swaa_convert.staging, convert, copying, exchange, hashing, leftovers, manifest, refresh, shutil, tempfile)
_FILES = {module.__file__ for module in _MODULES}


class Executioner:
    """Kills this process before the line with the number `last` runs."""

    def __init__(self, last: int) -> None:
        self.last, self.lines = last, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in _FILES:
            return None
        if event == "line" and (self.lines or frame.f_code.co_name == "claimed"):
            self.lines += 1
            if self.lines == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def work(command: str, source: Path, out: Path) -> None:
    """Run one of `COMMANDS`; all but the first two replace a repo that stands at `out`."""
    if command.endswith("in-two-steps"):
        swaa_convert.staging.exchange = lambda one, other: False
    if command.startswith("refresh"):
        refresh_code(out, check=False)
        return
    force, link = command.startswith("force"), command == "link"
    convert_checkpoint(source, out, Recipe(window=9), force=force, link=link, check=False)


if __name__ == "__main__":
    executioner = Executioner(int(sys.argv[1]))
    sys.settrace(executioner)
    work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    sys.settrace(None)
    print(executioner.lines)
