"""Whether files are still those that a conversion was planned with: where their tensors stand is read but once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.merge.adapter import Adapter
from swaa_convert.source import Source


@dataclass(frozen=True)
class Stamp:
    """What tells a file that was written anew.

    No inode: some network drives number the same file anew after a while.
    """

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Stamps:
    """The stamps of weight files, by path.

    Parameters
    ----------
    files:
        Each file's stamp, and its name as a message has it.
    """

    files: Mapping[Path, tuple[str, Stamp]]

    def of(self, source: Source, name: str) -> Stamp:
        """The stamp of a file of the source."""
        return self.files[source.path_of(name)][1]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Refuse what was made inside, also where it failed, if a file was written anew until its end."""
        try:
            yield
        except Exception:
            self._compare()
            raise
        self._compare()

    def _compare(self) -> None:
        for path, (name, before) in self.files.items():
            if not path.exists() or _stamp(path) != before:
                raise SwaaError(
                    f"{name} was changed while it was converted: wait until nothing writes to it, and convert again"
                )


def take_stamps(source: Source, weights: Sequence[str], adapters: Sequence[Adapter]) -> Stamps:
    """The stamps of the weights of a source and of adapters, as they are now."""
    named = [(source, name) for name in weights] + [(adapter.source, adapter.weights) for adapter in adapters]
    paths = {of.path_of(name): f"{of.name}: {name}" for of, name in named}
    return Stamps({path: (name, _stamp(path)) for path, name in paths.items()})


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)
