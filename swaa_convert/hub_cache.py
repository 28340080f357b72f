"""What of a model on the Hub lies in the client's cache already, so that only the rest needs room."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from swaa_convert.source import Download


def still_to_fetch(
    repo_id: str, revision: str | None, files: Mapping[str, int], blobs: Mapping[str, str], names: Iterable[str]
) -> Download:
    """Where the client puts these files and how many of their bytes are not there yet.

    `files` has their sizes in bytes, `blobs` the names under which the cache keeps what they hold.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    snapshot = folder / "snapshots" / str(revision)
    # What another commit has too is there, though this one's snapshot doesn't name it yet.
    missing = [name for name in names if not (snapshot / name).exists()]
    return Download(folder, sum(_rest(folder / "blobs", blobs.get(name), files[name]) for name in missing))


def _rest(folder: Path, blob: str | None, size: int) -> int:
    if not blob:
        return size
    if (folder / blob).exists():
        return 0
    part = folder / f"{blob}.incomplete"
    # Clients that go on with a part call it so; others begin anew under a new name.
    return max(size - part.stat().st_size, 0) if part.is_file() else size
