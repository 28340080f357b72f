"""The model families that can be converted: one file each in `modeling/`, read here without being imported.

A family file `modeling_swaa_xxx.py` holds `SwaaXxxConfig` (with `model_type = "swaa_xxx"`), `SwaaXxxModel`
and `SwaaXxxForCausalLM`, and `TRANSFORMERS = "transformers>=x.y"` if not every supported version has the family.
Adding a family is adding that file.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.requirements import Requirement

from swaa_convert.resources import MODELING_DIR

_OLDEST = "4.57"

_AUTO_CLASSES = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForCausalLM": "ForCausalLM"}


@dataclass(frozen=True)
class Family:
    """One convertible family: the source's names and ours, and the versions of transformers that it needs."""

    model_type: str
    swaa_model_type: str
    architecture: str
    swaa_prefix: str
    entry_file: str
    needs: str = "transformers"

    @property
    def swaa_architecture(self) -> str:
        return f"{self.swaa_prefix}ForCausalLM"

    @property
    def versions(self) -> str:
        """The versions of transformers that have it, in words."""
        parts = Requirement(self.needs).specifier
        least = [part.version for part in parts if part.operator == ">="] or [_OLDEST]
        return ", but not ".join([f"{least[0]} or newer", *(part.version for part in parts if part.operator == "!=")])

    @property
    def auto_map(self) -> dict[str, str]:
        """What transformers' Auto classes load from the repo's own files."""
        module = Path(self.entry_file).stem
        return {auto: f"{module}.{self.swaa_prefix}{suffix}" for auto, suffix in _AUTO_CLASSES.items()}


@lru_cache
def families(modeling_dir: Path = MODELING_DIR) -> tuple[Family, ...]:
    """Every family that has a file in `modeling_dir`."""
    return tuple(_read_family(path) for path in sorted(modeling_dir.glob("modeling_swaa_*.py")))


def transformers_for(swaa_model_type: object) -> str:
    """The versions of transformers that a converted repo needs, in words."""
    return {family.swaa_model_type: family.versions for family in families()}.get(
        str(swaa_model_type), f"{_OLDEST} or newer"
    )


def shipped_files(family: Family, modeling_dir: Path = MODELING_DIR) -> tuple[str, ...]:
    """The entry file and everything that it imports relatively, directly or through a helper."""
    found: list[str] = []
    waiting = [family.entry_file]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting.extend(_relative_imports(modeling_dir / name))
    return tuple(found)


def _read_family(path: Path) -> Family:
    module = _parse(path)
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            model_type = _constant(node, "model_type")
            if model_type is not None:
                needs = _constant(module, "TRANSFORMERS") or Family.needs
                return _family(node.name.removesuffix("Config"), model_type, path.name, needs)
    raise ValueError(f"{path}: no class SwaaXxxConfig with model_type = 'swaa_xxx'")


def _family(prefix: str, model_type: str, entry_file: str, needs: str) -> Family:
    return Family(
        model_type=model_type.removeprefix("swaa_"),
        swaa_model_type=model_type,
        architecture=f"{prefix.removeprefix('Swaa')}ForCausalLM",
        swaa_prefix=prefix,
        entry_file=entry_file,
        needs=needs,
    )


def _constant(node: ast.ClassDef | ast.Module, name: str) -> str | None:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = ast.literal_eval(statement.value) if isinstance(statement, ast.Assign) else None
            return value if isinstance(value, str) else None
    return None


def _relative_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            yield f"{node.module}.py"


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
