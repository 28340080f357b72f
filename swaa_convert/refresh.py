"""`refresh-code`: a converted repo with the code that this version ships; every other file stays byte for byte."""

import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from swaa_convert import __version__
from swaa_convert.copying import copy_file, write_file
from swaa_convert.embedded_code import CodeChanges, code_changes, code_names, family_of, shipped_code
from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.foreign_code import foreign_code
from swaa_convert.inspect.repo import ConvertedRepo, repo_of
from swaa_convert.leftovers import sweep
from swaa_convert.manifest import MANIFEST, FileEntry, dump_manifest
from swaa_convert.source import LocalSource, Source, open_source
from swaa_convert.space import require_space
from swaa_convert.staging import absolute, check_target, refuse_overlap, staged
from swaa_convert.system_errors import one_line_errors


@dataclass(frozen=True)
class Refreshed:
    """What was done.

    Parameters
    ----------
    folder:
        The refreshed repo.
    changes:
        Its code files that are not what they were.
    before:
        The version of swaa-convert whose code it carried, if it says so.
    has_manifest:
        Whether there was a manifest to bring up to date.
    written:
        False: nothing differed, and nothing was touched.
    """

    folder: Path
    changes: CodeChanges
    before: str | None
    has_manifest: bool
    written: bool = True


def refresh_code(
    repo: str | Path,
    out: Path | None = None,
    *,
    revision: str | None = None,
    force: bool = False,
    quiet: bool = True,
    check: bool = True,
) -> Refreshed:
    """Replace the embedded code of a converted repo, in one step.

    Parameters
    ----------
    repo:
        A folder, or a model on the Hub, which needs `out`.
    out:
        Where the refreshed copy goes; None: the folder itself is refreshed.
    revision:
        The Hub revision.
    force:
        Replace `out` if it is a converted repo.
    check:
        Load the result's structure before it appears.
    """
    with one_line_errors("nothing was changed"):
        target = absolute(Path(os.path.realpath(Path(repo).expanduser())) if out is None else out)
        sweep(target)
        source = open_source(repo, revision, quiet=quiet)
        found = repo_of(source, str(repo))
        files, result = _plan(source, found, target)
        if out is None:
            return _in_place(source, files, result, check=check)
        check_target(target, force=force)
        return _copied(source, files, result, quiet=quiet, check=check)


def _plan(source: Source, repo: ConvertedRepo, target: Path) -> tuple[dict[str, bytes], Refreshed]:
    """The files to write, code and manifest, and what will be said of them."""
    family = family_of(source.name, repo.config)
    _refuse_foreign(source)
    files = shipped_code(family)
    changes = code_changes(source, family)
    if repo.manifest is not None:
        kept = {name: entry for name, entry in repo.manifest.files.items() if name not in code_names(source)}
        code = {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
        files[MANIFEST] = dump_manifest(replace(repo.manifest, files=kept | code, code=__version__))
    return files, Refreshed(target, changes, repo.code_version, repo.manifest is not None)


def _refuse_foreign(source: Source) -> None:
    """Nothing that transformers would run stays beside the new code; what lies there unnamed, it leaves alone."""
    for name, what in foreign_code(source):
        if "/" in name or not name.endswith(".py"):
            raise SwaaError(f"{source.name}: {name} {what}: take that away first, or convert its source again")


def _in_place(source: Source, files: dict[str, bytes], result: Refreshed, *, check: bool) -> Refreshed:
    """Build the folder anew beside itself, everything else as hard links, and let the two change places."""
    if not isinstance(source, LocalSource):
        raise SwaaUsageError(f"{source.name} is on the Hub: say with --out where the refreshed copy goes")
    if source.repo_id is not None:
        raise SwaaUsageError(f"{result.folder} is in the Hub's cache: say with --out where the refreshed copy goes")
    up_to_date = all(name in source.files and source.read(name) == data for name, data in files.items())
    if up_to_date and not result.changes:
        return replace(result, written=False)
    if Path.cwd().is_relative_to(result.folder):
        raise SwaaError(f"{result.folder} cannot be replaced while you are in it: change to another folder first")
    with staged(result.folder) as stage:
        clone(source.root, stage, {*files, *code_names(source)})
        _finish(stage, files, check=check)
    return result


def _copied(source: Source, files: dict[str, bytes], result: Refreshed, *, quiet: bool, check: bool) -> Refreshed:
    if isinstance(source, LocalSource):
        refuse_overlap(result.folder, source.root)
    kept = [name for name in source.files if _is_kept(name) and name not in {*files, *code_names(source)}]
    require_space(result.folder, sum(source.files[name] for name in kept), downloads=[source.to_fetch(kept)])
    source.fetch(kept, quiet=quiet)
    with staged(result.folder) as stage:
        for name in kept:
            (stage / name).parent.mkdir(exist_ok=True)
            copy_file(source.path_of(name), stage / name, lambda count: None)
        _finish(stage, files, check=check)
    return result


def _is_kept(name: str) -> bool:
    """What a conversion writes stands at the top or among the chat templates; dot files are the Hub's."""
    path = PurePosixPath(name)
    in_place = len(path.parts) == 1 or (path.parts[0] == "additional_chat_templates" and len(path.parts) == 2)
    return in_place and not path.name.startswith(".")


def _finish(stage: Path, files: dict[str, bytes], *, check: bool) -> None:
    for name, data in files.items():
        write_file(stage / name, data)
    if check:
        # torch and transformers are imported here and not before.
        from swaa_convert.check import check_repo

        check_repo(stage)


def clone(folder: Path, copy: Path, skipped: Collection[str]) -> None:
    """Everything in a folder but the skipped names, as hard links where the file system has them."""
    for entry in os.scandir(folder):
        new = copy / entry.name
        if entry.name in skipped:
            continue
        if entry.is_symlink():
            new.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            new.mkdir()
            clone(Path(entry.path), new, ())
            shutil.copystat(entry.path, new)
        elif entry.is_file():
            _link_or_copy(Path(entry.path), new)
        else:
            raise SwaaError(f"{entry.path} is neither a file nor a folder: move it away first")


def _link_or_copy(file: Path, new: Path) -> None:
    try:
        os.link(file, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, new)
