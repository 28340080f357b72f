"""Where the files that are shipped or filled in live: in the installed package, or beside it in a checkout."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent


def _find(name: str, checkout: str) -> Path:
    shipped = _PACKAGE / "_shipped" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / checkout


MODELING_DIR = _find("modeling", "modeling")
TEMPLATES_DIR = _find("templates", "templates")
DEMO_CHECKPOINT = _find("needle-qwen3", "examples/needle-qwen3")


@lru_cache
def shipped_module(name: str) -> ModuleType:
    """One of the files in modeling/ that import nothing but the standard library: it is read here as models read it."""
    spec = importlib.util.spec_from_file_location(name, MODELING_DIR / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
