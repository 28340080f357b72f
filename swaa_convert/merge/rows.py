"""A large matrix, such as the embeddings of many words, merged some rows at a time.

peft computes the change of a whole module at once, in float32, with several copies of it on the way: seven times what
is stored of lm_head. Each row is computed from its own row of the adapter and the other, small factor, so that some
rows give the bits of the whole, if there are enough of them: a row or two times a matrix is rounded otherwise.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swaa_convert.merge.loaded import LoadedAdapter
from swaa_convert.merge.model import is_tied, piece

# Rows in multiples of this begin at places that vector instructions treat alike, whatever the rank.
_ALIKE = 16
# Where a module notes how many rows it has, which peft builds its layers by.
_COUNTS: dict[type[nn.Module], str] = {nn.Linear: "out_features", nn.Embedding: "num_embeddings"}
# Beside a LoRA onto embeddings, peft saves those that it was trained on, and puts them in place of the model's.
_BY_ROW = re.compile(r"lora_B\.weight|lora_magnitude_vector(\.weight)?|base_layer\.(weight|bias)")
_BY_COLUMN = re.compile(r"lora_embedding_A")
_SHARED = re.compile(r"lora_A\.weight|lora_embedding_B")
# Others start from the weights, of which they want all.
_STARTS = (True, False, "gaussian")


@dataclass(frozen=True)
class Rows:
    """The rows of a module, or of two with tied weights.

    Parameters
    ----------
    unit:
        The paths.
    count:
        How many rows there are.
    """

    unit: tuple[str, ...]
    count: int

    def blocks(self, most: int) -> Iterator[slice]:
        """All rows, about `most` at a time; what is left over comes with the last ones, never alone."""
        step = max(_ALIKE, most // _ALIKE * _ALIKE)
        starts = list(range(0, max(1, self.count - step + 1), step))
        for start, stop in zip(starts, [*starts[1:], self.count], strict=True):
            yield slice(start, stop)

    def model(self, model: Any, count: int) -> Any:
        """The part of the empty model that holds the modules, with as many rows."""
        few = piece(model, self.unit)
        tied = is_tied(few)
        for path in self.unit:
            module = few.get_submodule(path)
            for name, whole in module.named_parameters():
                shape = (count, *whole.shape[1:])
                module._parameters[name] = nn.Parameter(torch.empty(shape, dtype=whole.dtype, device="meta"))
            setattr(module, _COUNTS[_kind(module)], count)
        if tied:
            few.lm_head.weight = few.model.embed_tokens.weight
        return few

    def adapter(self, adapter: LoadedAdapter, rows: slice) -> LoadedAdapter:
        """An adapter with no more for these modules than its share in some rows."""
        mine = {path: adapter.keys[path] for path in self.unit if path in adapter.keys}
        tensors = {key: _share(adapter.tensors[key], _inner(key, path), rows) for path in mine for key in mine[path]}
        return replace(adapter, tensors={**adapter.tensors, **tensors})


def find_rows(
    model: Any, unit: tuple[str, ...], stored: Mapping[str, tuple[int, ...]], adapters: Sequence[LoadedAdapter]
) -> Rows | None:
    """The rows of modules, if those can be merged in parts with the bits of the whole; `stored` has the shapes."""
    modules = {path: model.get_submodule(path) for path in unit}
    if not all(isinstance(module, tuple(_COUNTS)) for module in modules.values()):
        return None
    shapes = {f"{path}.{n}": tuple(p.shape) for path in unit for n, p in modules[path].named_parameters()}
    counts = {shape[0] for shape in shapes.values()}
    if len(counts) != 1 or any(shapes.get(name) != shape for name, shape in stored.items()):
        return None
    rows = Rows(unit, counts.pop())
    touching = [(adapter, path) for adapter in adapters for path in unit if path in adapter.keys]
    return rows if all(_can_be_parted(adapter, path, rows.count) for adapter, path in touching) else None


def _can_be_parted(adapter: LoadedAdapter, path: str, count: int) -> bool:
    if path not in adapter.by_rows or adapter.config.init_lora_weights not in _STARTS:
        return False
    return all(_is_known(_inner(key, path), adapter.tensors[key], count) for key in adapter.keys[path])


def _is_known(inner: str, tensor: Tensor, count: int) -> bool:
    if _BY_ROW.fullmatch(inner):
        return tensor.shape[0] == count
    if _BY_COLUMN.fullmatch(inner):
        return tensor.shape[-1] == count
    return _SHARED.fullmatch(inner) is not None


def _share(whole: Tensor, inner: str, rows: slice) -> Tensor:
    if _BY_ROW.fullmatch(inner):
        return whole[rows]
    return whole[:, rows] if _BY_COLUMN.fullmatch(inner) else whole


def _inner(key: str, path: str) -> str:
    return key.partition(f"{path}.")[2]


def _kind(module: nn.Module) -> type[nn.Module]:
    return next(kind for kind in _COUNTS if isinstance(module, kind))
