"""The folder that is pushed: only a whole, verified converted repo."""

from dataclasses import dataclass
from pathlib import Path

from swaa_convert import __version__
from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.manifest import Manifest
from swaa_convert.plan import CARD
from swaa_convert.publish.pinned import has_loading_code
from swaa_convert.source import LocalSource
from swaa_convert.verify.checks import Check
from swaa_convert.verify.files import check_code, check_files
from swaa_convert.verify.verify import open_converted


@dataclass(frozen=True)
class Verified:
    """A folder whose files are those of its manifest.

    Parameters
    ----------
    card:
        Its model card; None if it has none.
    older_code:
        The version of swaa-convert whose code it carries, if that is not the installed one.
    """

    folder: Path
    repo: LocalSource
    manifest: Manifest
    card: bytes | None
    older_code: str | None


def verified(folder: Path, advance: Advance) -> Verified:
    """Check every hash and the embedded code; `advance` is told how many bytes more were read."""
    repo, manifest = open_converted(folder)
    files = check_files(repo, manifest, advance)
    if files.differences:
        raise SwaaError(f"{folder} is not what was converted: {_some(files)} (`swaa-convert verify {folder}` says all)")
    code, _ = check_code(repo)
    recorded = manifest.code != __version__
    if code.differences and not recorded:
        raise SwaaError(f"{folder}: {_some(code)}: run `swaa-convert refresh-code {folder}`")
    card = repo.read(CARD) if CARD in manifest.files else None
    if card is not None and not has_loading_code(card):
        raise SwaaError(f"{folder}: {CARD} has no loading code to pin: write it anew with `swaa-convert card {folder}`")
    return Verified(folder, repo, manifest, card, manifest.code if code.differences else None)


def _some(check: Check) -> str:
    first, *others = check.differences
    return f"{first.thing} {first.what}" + (f", and {len(others)} more differ" if others else "")
