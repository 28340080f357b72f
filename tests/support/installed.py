"""Families that the installed transformers has."""

from importlib.metadata import version
from typing import Any

import pytest
from packaging.requirements import Requirement

from swaa_convert.families import families

_NEEDS = {family.model_type: family.needs for family in families()}


def if_installed(family: str, *more: str) -> Any:
    """A test's parameters, the family's model_type first; without the family in transformers the test is skipped."""
    needs = _NEEDS[family]
    there = Requirement(needs).specifier.contains(version("transformers"), prereleases=True)
    return pytest.param(family, *more, marks=pytest.mark.skipif(not there, reason=f"{family} needs {needs}"))
