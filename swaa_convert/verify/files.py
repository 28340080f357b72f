"""Every file of a converted repo beside its manifest, and its code beside what this version ships."""

import os
from collections.abc import Iterator
from pathlib import Path

from swaa_convert import __version__
from swaa_convert.copying import Advance
from swaa_convert.embedded_code import code_changes, family_of
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family
from swaa_convert.foreign_code import foreign_code
from swaa_convert.hashing import Hasher
from swaa_convert.manifest import MANIFEST, Manifest
from swaa_convert.source import LocalSource
from swaa_convert.verify.checks import Check, Difference


def check_files(repo: LocalSource, manifest: Manifest, advance: Advance) -> Check:
    """Size and SHA-256 of each file, that there are no others, and that none is or names code of somebody else.

    Files and folders whose names begin with a dot are the Hub's or git's: nothing that a model is loaded from. A
    `__pycache__` is not transformers', which compiles code in a cache of its own.
    """
    found = [*_listed(repo, manifest, advance)]
    found += [Difference(name, f"is not in {MANIFEST}") for name in _all_files(repo.root) if name not in manifest.files]
    # A manifest proves nothing here: who adds code can add it to the manifest.
    foreign = dict(foreign_code(repo))
    found = [difference for difference in found if difference.thing not in foreign]
    found += [Difference(name, what) for name, what in foreign.items()]
    found.sort(key=lambda difference: difference.thing)
    said = f"{len(found)} differences" if found else f"{len(manifest.files)} files as in {MANIFEST}"
    return Check("files", said, tuple(found))


def check_code(repo: LocalSource) -> tuple[Check, Family | None]:
    """The embedded code, and the family that it is of if it may be run: the very files that this version ships."""
    try:
        if "config.json" not in repo.files:
            raise SwaaError("config.json is missing, so nothing says what code belongs here")
        family = family_of(repo.name, repo.read_json("config.json"))
    except SwaaError as error:
        return Check("code", "cannot be told from config.json", (Difference("config.json", error.message),)), None
    changes = code_changes(repo, family)
    shipped = f"swaa-convert {__version__}"
    found = (
        *(Difference(name, f"is missing; {shipped} ships it") for name in changes.added),
        *(Difference(name, f"differs from what {shipped} ships") for name in changes.changed),
        *(Difference(name, f"is not among what {shipped} ships") for name in changes.removed),
    )
    if found:
        said = f"is not what {shipped} ships (`swaa-convert refresh-code` replaces it)"
        return Check("code", said, found), None
    return Check("code", f"code of {shipped}"), family


def _listed(repo: LocalSource, manifest: Manifest, advance: Advance) -> Iterator[Difference]:
    with Hasher() as hasher:
        for name, entry in manifest.files.items():
            wrong = _wrong(repo, name, entry.size)
            if wrong is None:
                hasher.add(name, repo.path_of(name), advance)
            else:
                advance(entry.size)
                yield Difference(name, wrong)
        for name, sha256 in hasher.finish().items():
            if sha256 != manifest.files[name].sha256:
                yield Difference(name, "has other content (SHA-256)")


def _wrong(repo: LocalSource, name: str, size: int) -> str | None:
    """What can be said of a file without reading it."""
    if name not in repo.files:
        return "is missing"
    if repo.files[name] != size:
        return f"has {repo.files[name]} bytes instead of {size}"
    try:
        repo.path_of(name)
    except SwaaError:
        return "is a link out of the folder"
    return None


def _all_files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if not name.startswith(".") and path != MANIFEST:
                yield path
