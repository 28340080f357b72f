"""Which family runs what: the first four run every test of tests/embedded/, the others what is here.

What no family changes by itself (beams, drafts, kinds of caches, training) each of them runs a part of, in turn, so
that every part meets several families and another family costs little time.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.installed import if_installed
from tests.support.more_families import MORE_FAMILIES


def each() -> Any:
    """Parametrizes a test by family; one that the installed transformers doesn't have is skipped."""
    return pytest.mark.parametrize("family", [if_installed(family) for family in MORE_FAMILIES])


def in_turn(cases: Sequence[str], per_family: int = 2) -> Any:
    """Parametrizes a test by (family, case), each family with the next few cases."""
    pairs = [
        if_installed(family, cases[(per_family * place + turn) % len(cases)])
        for place, family in enumerate(MORE_FAMILIES)
        for turn in range(per_family)
    ]
    return pytest.mark.parametrize(("family", "case"), pairs)
