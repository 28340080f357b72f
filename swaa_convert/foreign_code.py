"""Code that transformers would run with a repo beside the embedded one: named in a file of settings, or lying there."""

from collections.abc import Iterator
from typing import Any

from swaa_convert.embedded_code import code_names
from swaa_convert.errors import SwaaError
from swaa_convert.source import LocalSource, Source

# What transformers runs for trust_remote_code=True; in config.json, auto_map is compared with the family's own.
_KEYS = ("auto_map", "custom_pipelines")
_ADAPTER = "adapter_config.json"


def foreign_code(source: Source) -> Iterator[tuple[str, str]]:
    """(file, what is wrong with it) for all code in a converted repo that no conversion writes or names."""
    ours = code_names(source)
    for name in sorted({*source.files, *_below(source)}):
        if name.endswith(".py") and name not in ours:
            yield name, "is code that no conversion writes"
        elif name == _ADAPTER:
            # transformers fetches what it names, and loads it on top of the weights.
            yield name, "is an adapter, which would be loaded on top of the weights"
        elif name.endswith("config.json"):
            yield from ((name, f"names code to be run ({key})") for key in named_code(source, name))


def _below(source: Source) -> Iterator[str]:
    """Code in folders of a folder, where transformers looks too (custom_generate)."""
    if isinstance(source, LocalSource):
        yield from (path.relative_to(source.root).as_posix() for path in source.root.rglob("*.py"))


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
