"""Keeping transformers' bars and notes out of the terminal: what matters is raised."""

from collections.abc import Iterator
from contextlib import contextmanager

import transformers


@contextmanager
def silence() -> Iterator[None]:
    """Inside, transformers says nothing."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
