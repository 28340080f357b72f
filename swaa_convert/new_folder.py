"""A new folder of small files, which appears whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from swaa_convert.errors import SwaaError


def write_folder(out: Path, texts: Mapping[str, str]) -> None:
    """Write the files, name to text, as the folder `out`, which must not be there or be empty."""
    target = Path(os.path.abspath(out.expanduser()))
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise SwaaError(f"{out} exists already: choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as made:
        # One level down: the temporary folder itself is closed to other users, and would stay so.
        folder = Path(made) / target.name
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if target.exists():
            target.rmdir()
        folder.rename(target)
