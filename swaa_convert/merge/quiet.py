"""Keeping peft's warnings out of the terminal as well as transformers' notes: what matters is raised."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from swaa_convert import quiet


@contextmanager
def silence() -> Iterator[None]:
    """Inside, transformers and peft say nothing."""
    with quiet.silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
