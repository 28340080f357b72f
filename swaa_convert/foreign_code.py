"""Code that transformers would run with a repo beside the embedded one: named in a file of settings, or lying there."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from swaa_convert.embedded_code import code_names
from swaa_convert.errors import SwaaError
from swaa_convert.source import LocalSource, Source

# What Python imports, source or compiled: of a folder, it takes an extension module before the source beside it.
CODE = frozenset(".py .pyw .pyc .pyo .so .pyd .dylib .dll".split())
# What transformers runs for trust_remote_code=True; in config.json, auto_map is compared with the family's own.
_KEYS = ("auto_map", "custom_pipelines")
_ADAPTER = "adapter_config.json"


def foreign_code(source: Source) -> Iterator[tuple[str, str]]:
    """(file, what is wrong with it) for all code in a converted repo that no conversion writes or names."""
    ours = code_names(source)
    for name in sorted({*source.files, *_below(source)}):
        if _is_code(name):
            if name not in ours:
                yield name, _what(name)
        elif _is_linked_folder(source, name):
            yield name, "is a link to a folder: what lies there is not looked at"
        elif name == _ADAPTER:
            # transformers fetches what it names, and loads it on top of the weights.
            yield name, "is an adapter, which would be loaded on top of the weights"
        elif name.endswith("config.json"):
            yield from ((name, f"names code to be run ({key})") for key in named_code(source, name))


def _below(source: Source) -> Iterator[str]:
    """Code in folders of a folder, where transformers looks too (custom_generate), and links to folders.

    What is compiled counts in `__pycache__` too: transformers imports code from a cache of its own and leaves none
    there, and nothing tells whether a compiled file is made of the source that it stands for.
    """
    if not isinstance(source, LocalSource):
        return
    for path in source.root.rglob("*"):
        name = path.relative_to(source.root).as_posix()
        if _is_linked_folder(source, name) or (_is_code(name) and not path.is_dir()):
            yield name


def _is_code(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in CODE


def _what(name: str) -> str:
    if name.lower().endswith((".py", ".pyw")):
        return "is code that no conversion writes"
    return "is compiled code, which no conversion writes"


def _is_linked_folder(source: Source, name: str) -> bool:
    """Whether transformers could read files through a link that a walk through the folder does not follow."""
    if not isinstance(source, LocalSource) or PurePosixPath(name).name.startswith("."):
        return False
    path: Path = source.root / name
    return path.is_symlink() and path.is_dir()


def named_code(source: Source, name: str) -> Iterator[str]:
    """The keys of a file of settings that name code: the repo's, another repo's, or a kernel on the Hub."""
    try:
        values: dict[str, Any] = source.read_json(name)
    except SwaaError:
        # Nor does transformers read it.
        return
    for key, value in values.items():
        code = key in _KEYS and bool(value) and (key, name) != ("auto_map", "config.json")
        # transformers fetches such a kernel and runs it.
        if code or (key.endswith("_implementation") and "/" in str(value)):
            yield key
