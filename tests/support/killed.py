"""A conversion that is killed: `python -m tests.support.killed LINE COMMAND SOURCE OUT`.

It counts the lines of Python that run in the files that write, in all threads, from the moment a folder beside the
target is made, and kills itself before line LINE. Line 0 kills nothing and prints how many lines there were, about as
many as the next time.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import swaa_convert.staging
from swaa_convert import convert, copying, exchange, hashed_file, hashing, leftovers, manifest, refresh, resume
from swaa_convert.convert import convert_checkpoint
from swaa_convert.merge.adapter import open_adapters
from swaa_convert.recipe import Recipe
from swaa_convert.refresh import refresh_code
from swaa_convert.shards import pool, write

COMMANDS = ("plain", "link", "force", "force-in-two-steps", "refresh", "refresh-in-two-steps", "lora", "resume")
_OTHERS = (convert, copying, exchange, hashed_file, hashing, leftovers, manifest, pool, refresh, resume, write)
_FILES = {module.__file__ for module in (swaa_convert.staging, shutil, tempfile, *_OTHERS)}


class Executioner:
    """Kills this process before the line with the number `last` runs."""

    def __init__(self, last: int) -> None:
        self.last, self.lines, self.lock = last, 0, threading.Lock()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in _FILES:
            return None
        if event == "line" and (self.lines or frame.f_code.co_name == "claimed"):
            with self.lock:
                self.lines += 1
                if self.lines == self.last:
                    os.kill(os.getpid(), signal.SIGKILL)
        return self


def work(command: str, source: Path, out: Path) -> None:
    """Run one of `COMMANDS`; those that force or refresh replace a repo that stands at `out`."""
    if command.endswith("in-two-steps"):
        swaa_convert.staging.exchange = lambda one, other: False
    if command.startswith("refresh"):
        refresh_code(out, check=False)
        return
    convert_checkpoint(source, out, Recipe(window=9), check=False, **options(command, source))


def options(command: str, source: Path) -> dict[str, Any]:
    """What sets a conversion apart."""
    merges = command in ("lora", "resume")
    return {
        "force": command.startswith("force"),
        "link": command == "link",
        "resume": command == "resume",
        "adapters": open_adapters([source.parent / "adapter"]) if merges else (),
    }


if __name__ == "__main__":
    executioner = Executioner(int(sys.argv[1]))
    if sys.argv[2] in ("lora", "resume"):
        # What takes seconds need not be counted.
        import swaa_convert.merge.merger
    threading.settrace(executioner)
    sys.settrace(executioner)
    work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    sys.settrace(None)
    print(executioner.lines)
