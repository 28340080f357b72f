"""Where the files that are shipped or filled in live: in the installed package, or beside it in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _find(name: str, checkout: str) -> Path:
    shipped = _PACKAGE / "_shipped" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / checkout


MODELING_DIR = _find("modeling", "modeling")
TEMPLATES_DIR = _find("templates", "templates")
DEMO_CHECKPOINT = _find("needle-qwen3", "examples/needle-qwen3")
