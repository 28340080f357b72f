"""The code that converted repos carry, beside what this version of swaa-convert ships."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swaa_convert import __version__
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family, families, shipped_files
from swaa_convert.resources import MODELING_DIR
from swaa_convert.source import Source

# A source's own Python is never copied, so these names in a converted repo are ours.
_CODE = re.compile(r"(modeling_)?swaa_\w+\.py")


@dataclass(frozen=True)
class CodeChanges:
    """What makes a repo's code into what this version ships: file names."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def shipped_code(family: Family) -> dict[str, bytes]:
    """The files that a converted repo of the family carries, name to content."""
    return {name: (MODELING_DIR / name).read_bytes() for name in shipped_files(family)}


def code_names(source: Source) -> set[str]:
    """The names of the code files that a converted repo carries now."""
    return {name for name in source.files if _CODE.fullmatch(name)}


def code_changes(source: Source, family: Family) -> CodeChanges:
    """What differs between a repo's code and the shipped."""
    shipped, there = shipped_code(family), code_names(source)
    differing = (name for name in shipped.keys() & there if source.read(name) != shipped[name])
    return CodeChanges(
        added=tuple(sorted(shipped.keys() - there)),
        changed=tuple(sorted(differing)),
        removed=tuple(sorted(there - shipped.keys())),
    )


def family_of(name: str, config: Mapping[str, Any]) -> Family:
    """The family of a converted repo by its config.json, whose entries must be those of this version's code."""
    known = {family.swaa_model_type: family for family in families()}
    family = known.get(str(config.get("model_type")))
    if family is None:
        raise SwaaError(
            f"{name}: model_type in config.json is {config.get('model_type')!r}, and swaa-convert {__version__} "
            f"ships code for {', '.join(sorted(known))}: convert its source again"
        )
    named = config.get("auto_map")
    if not isinstance(named, Mapping) or not named or not named.items() <= family.auto_map.items():
        raise SwaaError(
            f"{name}: auto_map in config.json is {named!r}, which does not name the repo's own "
            f"{family.entry_file}: convert its source again"
        )
    return family
