"""A LoRA adapter as it was given: a local folder or a Hub model. Nothing heavy is imported to look at it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.source import LocalSource, Source, local_source

CONFIG = "adapter_config.json"
# What peft itself looks for, in this order.
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_CHUNK = 16 * 1024**2


@dataclass(frozen=True)
class Adapter:
    """One adapter to merge.

    Parameters
    ----------
    source:
        Its files.
    config:
        Its adapter_config.json.
    """

    source: Source
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def base(self) -> str:
        """The model that it was trained on, as far as it says so."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def is_local(self) -> bool:
        return isinstance(self.source, LocalSource)

    @property
    def weights(self) -> str:
        """The name of the file with its tensors."""
        for name in WEIGHTS:
            if name in self.source.files:
                return name
            _refuse_strange(self.source, name)
        raise SwaaError(f"{self.name} has no {WEIGHTS[0]}: save the adapter again, or fetch it again")

    @cached_property
    def provenance(self) -> dict[str, str | None]:
        """What swaa_recipe.yaml keeps of it: never a path of this machine, so a local one is known by its hash."""
        if self.source.revision:
            return self.source.provenance
        return {**self.source.provenance, "sha256": _sha256(self.source.path_of(self.weights))}

    @property
    def settings_sha256(self) -> str:
        """The hash of its configuration: the same weights under another alpha are another adapter."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()


def open_adapters(given: Sequence[str | Path], revisions: Sequence[str] = (), *, quiet: bool = True) -> list[Adapter]:
    """The adapters that `--lora` names, in order; each revision belongs to the next one that comes from the Hub."""
    left = list(revisions)
    found = []
    for item in given:
        local = Path(item).expanduser().exists()
        found.append(open_adapter(item, None if local or not left else left.pop(0), quiet=quiet))
    if left:
        raise SwaaUsageError(f"--lora-revision {left[0]} has no --lora that comes from the Hub: drop it")
    return found


def open_adapter(given: str | Path, revision: str | None = None, *, quiet: bool = True) -> Adapter:
    """The adapter in a local folder or on the Hub; only its small files are fetched."""
    source = _open(given, revision, quiet=quiet)
    if not source.name.isprintable():
        # It stands in the card and in the recipe.
        raise SwaaError(f"--lora: the adapter's name {source.name!r} holds a line break or the like: rename the folder")
    _refuse_strange(source, CONFIG)
    if CONFIG not in source.files:
        what = "is a model, not an adapter" if "config.json" in source.files else f"has no {CONFIG}"
        raise SwaaError(f"--lora: {source.name} {what}: give what peft's save_pretrained wrote")
    adapter = Adapter(source, source.read_json(CONFIG))
    _ = adapter.weights
    return adapter


def refuse_inside(target: Path, adapters: Sequence[Adapter]) -> None:
    """An adapter in the folder that --force replaces would be gone with it."""
    for adapter in adapters:
        if isinstance(adapter.source, LocalSource) and adapter.source.root.is_relative_to(os.path.realpath(target)):
            raise SwaaError(f"--lora: {adapter.name} lies inside --out {target}: choose another folder")


def _refuse_strange(source: Source, name: str) -> None:
    """A folder, a pipe or a broken link where a file should be."""
    if name not in source.files and (what := source.strange().get(name)):
        raise SwaaError(f"--lora: {source.name}: {name} is {what}: put the adapter's file itself there")


def _open(given: str | Path, revision: str | None, *, quiet: bool) -> Source:
    path = Path(given).expanduser()
    if str(given) and path.is_dir():
        if revision is not None:
            raise SwaaUsageError(f"--lora-revision is for adapters on the Hub, but {given} is a local folder: drop it")
        return local_source(path, what="adapter")
    if not str(given) or path.exists():
        raise SwaaError(f"--lora takes a folder that holds {CONFIG}, or a Hub id, not {str(given)!r}")
    if str(given).count("/") != 1 or str(given).startswith((".", "/")):
        raise SwaaError(f"--lora: no folder {given} (an adapter on the Hub is written as in owner/name)")
    from swaa_convert.hub import open_hub_source

    return open_hub_source(str(given), revision, quiet=quiet, first=CONFIG)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()
