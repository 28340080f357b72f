"""Several files at once: while one waits for its disk or its merge, others are hashed and written."""

import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swaa_convert.copying import Advance

_WORKERS = min(4, 1 + (os.cpu_count() or 1))
# What all of them may hold together.
_MEMORY = 256 * 1024**2
Job = TypeVar("Job")
Watched = Callable[[Advance], Advance]


def side_by_side(
    jobs: Sequence[Job], work: Callable[[Job, Watched], None], held: int = 0
) -> Generator[Job, None, None]:
    """Do `work` for each job in a few threads and yield the jobs, in order, as they are done.

    Each holds up to `held` bytes in memory, so that there are fewer the more it is.

    What goes wrong in one, and Ctrl-C, stops the others the next time they say how far they are: `work` is given
    what wraps its Advance for that. Close the generator: then none of the threads is left.
    """
    stopped = threading.Event()

    def watched(advance: Advance) -> Advance:
        def told(count: int) -> None:
            if stopped.is_set():
                raise InterruptedError("the conversion was given up")
            advance(count)

        return told

    workers = max(1, min(_WORKERS, _MEMORY // max(held, 1)))
    with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
        try:
            for job, done in [(job, pool.submit(work, job, watched)) for job in jobs]:
                done.result()
                yield job
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
