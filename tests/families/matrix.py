"""Which family runs what: the first four run every test of tests/embedded/, the others what is here.

What no family changes by itself (beams, drafts, kinds of caches, training) each of them runs a part of, in turn, so
that every part meets several families and another family costs little time.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pytest
from packaging.requirements import Requirement

from swaa_convert.families import families
from tests.support.more_families import MORE_FAMILIES

_NEEDS = {family.model_type: family.needs for family in families()}


def each() -> Any:
    """Parametrizes a test by family; one that the installed transformers doesn't have is skipped."""
    return pytest.mark.parametrize("family", [_here(family) for family in MORE_FAMILIES])


def in_turn(cases: Sequence[str], per_family: int = 2) -> Any:
    """Parametrizes a test by (family, case), each family with the next few cases."""
    pairs = [
        _here(family, cases[(per_family * place + turn) % len(cases)])
        for place, family in enumerate(MORE_FAMILIES)
        for turn in range(per_family)
    ]
    return pytest.mark.parametrize(("family", "case"), pairs)


def _here(family: str, *more: str) -> Any:
    needs = _NEEDS[family]
    there = Requirement(needs).specifier.contains(version("transformers"), prereleases=True)
    marks = pytest.mark.skipif(not there, reason=f"{family} needs {needs}")
    return pytest.param(family, *more, marks=marks)
