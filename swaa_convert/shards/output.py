"""The weight files that a conversion writes, decided before any of them is begun."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swaa_convert.shards.layout import Shard, read_shard
from swaa_convert.shards.plan import cut, make_index, with_added
from swaa_convert.shards.write import is_copy
from swaa_convert.source import Source
from swaa_convert.weights import INDEX

if TYPE_CHECKING:
    from swaa_convert.merge.merger import Merger


@dataclass(frozen=True)
class Output:
    """What to write.

    Parameters
    ----------
    shards:
        The safetensors files, in order.
    index:
        Their index; None where a single file needs none.
    merger:
        Where changed tensors come from, if any change.
    limit:
        The size that the files were asked to have at most.
    """

    shards: tuple[Shard, ...]
    index: bytes | None
    merger: "Merger | None"
    limit: int | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the tensors that are no longer the source's."""
        slots = (slot for shard in self.shards for slot in shard.slots)
        return tuple(slot.name for slot in slots if self.merger is not None and self.merger.changes(slot))

    def new_bytes(self, *, link: bool) -> int:
        """What the weights take on the disk; files that are only linked take nothing."""
        return sum(shard.size for shard in self.shards if not (link and self.is_copy(shard)))

    @property
    def size(self) -> int:
        """Bytes of tensors."""
        return sum(shard.size for shard in self.shards)

    @property
    def held(self) -> int:
        """Bytes that a file waits with at most, merged and not written yet."""
        return 0 if self.merger is None else self.merger.largest

    def is_copy(self, shard: Shard) -> bool:
        """Whether a shard is a file of the source, byte for byte."""
        return is_copy(shard, self.merger)

    @property
    def unties(self) -> bool:
        """Whether the output embeddings become a weight of their own."""
        return self.merger is not None and self.merger.unties

    @property
    def rewritten(self) -> list[str]:
        """The names of the files that are no copies."""
        return [shard.name for shard in self.shards if not self.is_copy(shard)]


def plan_output(source: Source, weights: Sequence[str], merger: "Merger | None", limit: int | None) -> Output:
    """The output's weight files: the source's `weights`, merged by `merger`, in files of at most `limit` bytes."""
    shards = [read_shard(source.path_of(name), name) for name in weights if name != INDEX]
    added = merger.bind(shards) if merger is not None else {}
    planned = with_added(shards, added)
    if limit is not None:
        planned = cut(planned, limit)
    if planned == shards and INDEX in weights:
        return Output(tuple(planned), source.read(INDEX), merger, limit)
    old = source.read_json(INDEX) if INDEX in weights else None
    return Output(tuple(planned), make_index(planned, old), merger, limit)
