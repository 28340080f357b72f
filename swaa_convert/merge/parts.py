"""A large matrix, such as the embeddings of many words, merged some rows or columns at a time.

peft computes the change of a whole module at once, in float32, with several copies of it on the way: seven times what
is stored of lm_head. Each row is computed from its own row of the adapter and the other, small factor, so that some
rows give the bits of the whole, if there are enough of them: a row or two times a matrix is rounded otherwise. DoRA
normalizes the columns of the input embeddings, which are merged some columns at a time.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swaa_convert.merge.loaded import LoadedAdapter
from swaa_convert.merge.model import is_tied, piece

# Rows in multiples of this begin at places that vector instructions treat alike, whatever the rank.
_ALIKE = 16
ROWS, COLUMNS = 0, 1
# Where a module notes how many rows and columns it has, which peft builds its layers by.
_COUNTS: dict[type[nn.Module], tuple[str, str]] = {
    nn.Linear: ("out_features", "in_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
}
_TOKENS = "token_adapter.trainable_tokens_delta"
# What an adapter holds of a module, and which of its dimensions, if any, the rows and the columns of the module are.
# Beside a LoRA onto embeddings, peft saves those that it was trained on, and puts them in place of the model's.
_DIMENSIONS: dict[str, tuple[int | None, int | None]] = {
    r"lora_A\.weight": (None, 1),
    r"lora_B\.weight": (0, None),
    r"lora_embedding_A": (1, None),
    r"lora_embedding_B": (None, 0),
    # One number for whatever is normalized, rows or columns.
    r"lora_magnitude_vector(\.weight)?": (0, 0),
    r"((base_layer|modules_to_save)\.)?weight": (0, 1),
    r"((base_layer|modules_to_save)\.)?bias": (0, None),
}


@dataclass(frozen=True)
class Parts:
    """The rows or columns of a module, or of two with tied weights.

    Parameters
    ----------
    unit:
        The paths.
    axis:
        ROWS or COLUMNS.
    count:
        How many there are.
    """

    unit: tuple[str, ...]
    axis: int
    count: int

    def blocks(self, most: int) -> Iterator[slice]:
        """All of them, about `most` at a time; what is left over comes with the last ones, never alone."""
        step = max(_ALIKE, most // _ALIKE * _ALIKE)
        starts = list(range(0, max(1, self.count - step + 1), step))
        for start, stop in zip(starts, [*starts[1:], self.count], strict=True):
            yield slice(start, stop)

    def of(self, whole: Tensor, some: slice) -> Tensor:
        """Some rows or columns of a stored tensor, in its memory."""
        return _cut(whole, self.axis, some)

    def model(self, model: Any, others: Iterable[str], count: int) -> Any:
        """The part of the empty model that holds the modules, with as many rows or columns, and others as they are."""
        few = piece(model, {*self.unit, *others})
        tied = is_tied(few)
        for path in self.unit:
            module = few.get_submodule(path)
            for name, whole in module.named_parameters():
                module._parameters[name] = nn.Parameter(torch.empty_like(self.of(whole, slice(0, count))))
            setattr(module, _COUNTS[_kind(module)][self.axis], count)
        if tied:
            few.lm_head.weight = few.model.embed_tokens.weight
        return few

    def adapter(self, adapter: LoadedAdapter, some: slice) -> LoadedAdapter | None:
        """An adapter with no more for these modules than its share in some rows or columns, if it has one."""
        keys = {path: adapter.keys[path] for path in self.unit if path in adapter.keys}
        if any(_inner(key, path) == _TOKENS for path in keys for key in keys[path]):
            tokens = _tokens(adapter)
            within = [place for place, token in enumerate(tokens) if some.start <= token < some.stop]
            adapter = _with_tokens(adapter, {place: tokens[place] - some.start for place in within}, keys)
            keys = {path: adapter.keys[path] for path in keys}
            if not any(keys.values()):
                return None
        shares = {key: self._share(adapter, path, key, some) for path in keys for key in keys[path]}
        return replace(adapter, tensors={**adapter.tensors, **shares})

    def fits(self, adapter: LoadedAdapter, path: str) -> bool:
        """Whether what an adapter changes of a module can be parted with the bits of the whole."""
        return adapter.axes.get(path) == self.axis and all(
            self._is_known(adapter, _inner(key, path), adapter.tensors[key]) for key in adapter.keys[path]
        )

    def _is_known(self, adapter: LoadedAdapter, inner: str, tensor: Tensor) -> bool:
        if inner == _TOKENS:
            return len(_tokens(adapter)) == len(tensor)
        if not any(re.fullmatch(name, inner) for name in _DIMENSIONS):
            return False
        dimension = self._dimension(inner)
        return dimension is None or tensor.shape[dimension] == self.count

    def _share(self, adapter: LoadedAdapter, path: str, key: str, some: slice) -> Tensor:
        inner, whole = _inner(key, path), adapter.tensors[key]
        dimension = None if inner == _TOKENS else self._dimension(inner)
        if dimension is None:
            return whole
        return whole[some] if dimension == 0 else adapter.columns(key, some)

    def _dimension(self, inner: str) -> int | None:
        return next(dimensions[self.axis] for name, dimensions in _DIMENSIONS.items() if re.fullmatch(name, inner))


def find_parts(
    model: Any, unit: tuple[str, ...], stored: Mapping[str, tuple[int, ...]], adapters: Sequence[LoadedAdapter]
) -> Parts | None:
    """The parts in which modules can be merged with the bits of the whole, if there are such.

    Parameters
    ----------
    stored:
        The shapes of what is stored of the modules.
    """
    modules = {path: model.get_submodule(path) for path in unit}
    if not all(isinstance(module, tuple(_COUNTS)) for module in modules.values()):
        return None
    shapes = {f"{path}.{n}": tuple(p.shape) for path in unit for n, p in modules[path].named_parameters()}
    if any(shapes.get(name) != shape for name, shape in stored.items()):
        return None
    if len(unit) > 1 and any(_mixes(adapter, unit) for adapter in adapters):
        return None
    touching = [(adapter, path) for adapter in adapters for path in unit if path in adapter.keys]
    for axis in (ROWS, COLUMNS):
        counts = {shape[axis] if len(shape) > axis else 0 for shape in shapes.values()}
        parts = Parts(unit, axis, max(counts))
        if len(counts) == 1 and all(parts.fits(adapter, path) for adapter, path in touching):
            return parts
    return None


def _mixes(adapter: LoadedAdapter, tied: Sequence[str]) -> bool:
    """Whether one of tied modules gets a LoRA and the other is replaced: peft then wraps one layer in another."""
    return 0 < len(adapter.targets & set(tied)) < len(adapter.keys.keys() & set(tied))


def _tokens(adapter: LoadedAdapter) -> list[int]:
    """The tokens that are trained by themselves; none if modules have different ones."""
    tokens = adapter.config.trainable_token_indices or []
    if isinstance(tokens, dict):
        tokens = next(iter(tokens.values())) if len(tokens) == 1 else []
    return list(tokens)


def _with_tokens(adapter: LoadedAdapter, tokens: Mapping[int, int], paths: Iterable[str]) -> LoadedAdapter:
    """An adapter that trains only some of its tokens, given by their places in it, under other numbers."""
    config = copy.copy(adapter.config)
    named, numbers = config.trainable_token_indices, list(tokens.values())
    config.trainable_token_indices = dict.fromkeys(named, numbers) if isinstance(named, dict) else numbers
    keys, tensors = dict(adapter.keys), dict(adapter.tensors)
    for path in paths:
        for key in (key for key in keys[path] if _inner(key, path) == _TOKENS):
            tensors[key] = tensors[key][list(tokens)]
    if not tokens:
        config.trainable_token_indices = None
        keys |= {path: [key for key in keys[path] if _inner(key, path) != _TOKENS] for path in paths}
    return replace(adapter, config=config, keys=keys, tensors=tensors)


def _cut(whole: Tensor, dimension: int, some: slice) -> Tensor:
    return whole.narrow(dimension, some.start, some.stop - some.start)


def _inner(key: str, path: str) -> str:
    return key.partition(f"{path}.")[2]


def _kind(module: nn.Module) -> type[nn.Module]:
    return next(kind for kind in _COUNTS if isinstance(module, kind))
