"""The card of a converted repo from what the repo itself says: config, recipe, the source's card, measurements."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from swaa_convert.card import render_card
from swaa_convert.chat_template import remove_cot
from swaa_convert.copying import write_file
from swaa_convert.errors import SwaaError
from swaa_convert.inspect.repo import ConvertedRepo, repo_of
from swaa_convert.manifest import MANIFEST, FileEntry, Manifest, dump_manifest
from swaa_convert.measured import BENCH_FILE, Measured, kept, read_measured
from swaa_convert.plan import CARD, SOURCE_CARD
from swaa_convert.recipe import recipe_from
from swaa_convert.refresh import clone
from swaa_convert.source import LocalSource
from swaa_convert.staging import absolute, staged
from swaa_convert.system_errors import one_line_errors
from swaa_convert.verify.verify import open_converted


def rewrite_card(folder: Path, bench: Path | None = None) -> list[str]:
    """Write the card, with `bench` the measurements too; the names of the files that changed.

    Folder and manifest change in one step; the weights stay where they are.
    """
    with one_line_errors("nothing was changed"):
        target = absolute(Path(os.path.realpath(folder.expanduser())))
        source, manifest = open_converted(target)
        if source.repo_id is not None:
            raise SwaaError(f"{folder} is in the Hub's cache: copy it elsewhere first")
        files = _files(source, manifest, None if bench is None else (bench.read_bytes(), str(bench)))
        _refuse_edited(source, manifest, files)
        changed = [name for name, data in files.items() if name not in source.files or source.read(name) != data]
        entries = {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
        files[MANIFEST] = dump_manifest(replace(manifest, files={**manifest.files, **entries}))
        if source.read(MANIFEST) == files[MANIFEST] and not changed:
            return []
        if Path.cwd().is_relative_to(target):
            raise SwaaError(f"{folder} cannot be replaced while you are in it: change to another folder first")
        with staged(target) as stage:
            clone(target, stage, set(files))
            for name, data in files.items():
                write_file(stage / name, data)
    return [*changed, MANIFEST]


def _files(source: LocalSource, manifest: Manifest, bench: tuple[bytes, str] | None) -> dict[str, bytes]:
    repo = repo_of(source, str(source.root))
    found: dict[str, bytes] = {}
    measured = None
    if bench is None and BENCH_FILE in manifest.files and BENCH_FILE in source.files:
        bench = source.read(BENCH_FILE), f"{source.name}: {BENCH_FILE}"
    if bench is not None:
        measured = read_measured(*bench, manifest, repo.config["swaa_config"])
        found[BENCH_FILE] = kept(*bench)
    return found | {CARD: _card(source, repo, manifest, measured).encode()}


def _card(source: LocalSource, repo: ConvertedRepo, manifest: Manifest, measured: Measured | None) -> str:
    theirs = source.read(SOURCE_CARD) if SOURCE_CARD in source.files else None
    merged = manifest.merged.adapters if manifest.merged is not None else ()
    return render_card(
        source_id=str(manifest.source.get("id") or manifest.source.get("name")),
        source_revision=manifest.source.get("revision"),
        config=repo.config,
        recipe=recipe_from(dict(repo.recipe)),
        source_card=None if theirs is None else theirs.decode("utf-8", errors="replace"),
        cot_files=_changed_templates(source),
        adapters=[(str(each.get("id") or each.get("name")), _commit(each)) for each in merged],
        measured=measured,
        version=manifest.tool,
    )


def _commit(adapter: Mapping[str, Any]) -> str | None:
    revision = adapter.get("revision")
    return None if revision is None else str(revision)


def _changed_templates(source: LocalSource) -> list[str]:
    """The files with a chat template that `--cot` extended."""
    names = [name for name in source.files if name.endswith(".jinja") or name.endswith("_config.json")]
    names += [name for name in source.files if name == "chat_template.json"]
    held = {name: source.read(name) for name in sorted(names)}
    return [name for name, data in remove_cot(held).items() if data != held[name]]


def _refuse_edited(source: LocalSource, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """What stands in the folder is as the manifest says, or as it is about to be written."""
    for name, data in files.items():
        if name not in source.files or source.read(name) == data:
            continue
        entry = manifest.files.get(name)
        if entry is None or hashlib.sha256(source.read(name)).hexdigest() != entry.sha256:
            raise SwaaError(f"{name} in {source.root} was changed by hand: move it away first")
