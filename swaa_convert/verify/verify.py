"""All checks of one converted repo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family
from swaa_convert.manifest import MANIFEST, Manifest, read_manifest
from swaa_convert.merge.adapter import Adapter
from swaa_convert.source import LocalSource, Source, local_source, open_source
from swaa_convert.staging import is_converted
from swaa_convert.verify.checks import Check
from swaa_convert.verify.files import check_code, check_files
from swaa_convert.verify.merged import check_merged, given_adapters, with_adapters_near
from swaa_convert.verify.tensors import check_tensors


@dataclass(frozen=True)
class Verdict:
    """What was verified and what was found."""

    repo: LocalSource
    manifest: Manifest
    checks: tuple[Check, ...]

    @property
    def differences(self) -> int:
        """How many there are."""
        return sum(len(check.differences) for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """What was asked for and could not be looked at; nothing is claimed of it."""
        return tuple(check for check in self.checks if check.failed)

    @property
    def fine(self) -> bool:
        """Whether the repo is what was converted, as far as was asked for."""
        return not self.differences and not self.failed


def open_converted(folder: Path) -> tuple[LocalSource, Manifest]:
    """A folder with a manifest to verify it by; anything else is refused."""
    if not folder.is_dir():
        raise SwaaError(f"no folder {folder}: give a converted repo's (`hf download` fetches one from the Hub)")
    repo = local_source(folder)
    manifest = read_manifest(repo)
    if manifest is None and not is_converted(folder):
        raise SwaaError(
            f"{folder} is not a converted repo: it has no {MANIFEST}: convert it with --out DIR, and verify DIR"
        )
    if manifest is None:
        raise SwaaError(f"{folder} has no {MANIFEST}, so nothing says what it should hold: convert its source again")
    return repo, manifest


def verify_repo(
    repo: LocalSource,
    manifest: Manifest,
    source: str | None = None,
    lora: Sequence[str] = (),
    *,
    advance: Advance = lambda count: None,
    quiet: bool = True,
) -> Verdict:
    """Check files, code, tensors and a forward pass.

    Parameters
    ----------
    source:
        The source to compare the tensors with: a folder or a Hub id, which is taken at the commit in the manifest.
    lora:
        The folders of local adapters that were merged, unless they lie beside the repo, the source or in the working
        directory; those on the Hub are taken at the commits in the manifest.
    advance:
        Told how many bytes more were read.
    """
    # First, so that a source that is not there is said before gigabytes are read.
    opened = None if source is None else _open(source, manifest, quiet=quiet)
    given = given_adapters(lora, manifest)
    files = check_files(repo, manifest, advance)
    code, family = check_code(repo)
    tensors = _tensor_checks(repo, manifest, opened, given, advance, quiet=quiet)
    forward = _forward(repo, family, files)
    return Verdict(repo, manifest, (files, code, *tensors, forward))


def _tensor_checks(
    repo: LocalSource,
    manifest: Manifest,
    source: Source | None,
    given: Mapping[str, Adapter],
    advance: Advance,
    *,
    quiet: bool,
) -> tuple[Check, ...]:
    if source is None:
        return (Check("tensors", "tensors not compared with a source's (--source)", skipped=True),)
    merged = manifest.merged
    tensors = check_tensors(repo, source, () if merged is None else merged.tensors, advance, quiet=quiet)
    if merged is None:
        return (tensors,)
    places = [Path.cwd(), repo.root.parent, *([source.root.parent] if isinstance(source, LocalSource) else [])]
    given = with_adapters_near(given, manifest, places)
    return (tensors, check_merged(repo, source, merged, given, advance, quiet=quiet))


def _open(source: str, manifest: Manifest, *, quiet: bool) -> Source:
    pinned = manifest.source.get("revision") if source == manifest.source.get("id") else None
    return open_source(source, None if Path(source).is_dir() else pinned, quiet=quiet)


def _forward(repo: LocalSource, family: Family | None, files: Check) -> Check:
    if family is None or files.differences:
        why = "the files differ" if files.differences else "the code is not this version's"
        return Check("forward pass", f"forward pass skipped: {why}", skipped=True)
    # torch and transformers are imported here and not before.
    from swaa_convert.verify.forward import check_forward

    return check_forward(repo, family)
