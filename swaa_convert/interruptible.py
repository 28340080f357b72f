"""Long work of others that Ctrl-C ends at once."""

from collections.abc import Callable
from threading import Thread


def interruptible(work: Callable[[], object]) -> None:
    """Run `work` and raise what it raises; Ctrl-C is raised here at once, whatever `work` does with its threads.

    The Hub's client downloads with several threads and, interrupted, waits until each has finished its file, which
    may take many minutes. What `work` was doing goes on until the process ends.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run, name="interruptible", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
