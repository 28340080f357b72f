"""The merge of one conversion: which stored tensors it changes, and their new bytes as the shards are written."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from swaa_convert.errors import SwaaError
from swaa_convert.merge.adapter import Adapter
from swaa_convert.merge.experts import LEAST, Stack, find_stack
from swaa_convert.merge.loaded import load_adapter
from swaa_convert.merge.memory import return_large_blocks
from swaa_convert.merge.model import EMBEDDINGS, empty_model, is_tied
from swaa_convert.merge.parts import Parts, find_parts
from swaa_convert.merge.peft_merge import Unit, merge_experts, merge_parts, merge_units
from swaa_convert.merge.stored import DTYPES, is_finite, raw, read_tensor
from swaa_convert.merge.targets import find_targets
from swaa_convert.shards.layout import Shard, Slot
from swaa_convert.source import Source

# peft's layers are built for modules of about this many bytes at a time.
_BATCH = 64 * 1024**2
# Of what is larger by itself, as many bytes at a time: peft takes several times as much for them.
_PART = 16 * 1024**2
_INPUT, _OUTPUT = (f"{path}.weight" for path in EMBEDDINGS)


class Merger:
    """Merges adapters into a source, whose files are read as they are needed.

    Parameters
    ----------
    source:
        The model.
    config:
        Its config.json.
    adapters:
        The adapters, in the order in which they are merged.
    """

    def __init__(self, source: Source, config: Mapping[str, Any], adapters: Sequence[Adapter]) -> None:
        return_large_blocks()
        self._source = source
        self._adapters = [load_adapter(adapter) for adapter in adapters]
        worn = empty_model(config)
        self._tied = is_tied(worn)
        self.units = find_targets(worn, self._adapters, source.name)
        self.unties = self._tied and not is_tied(worn)
        self._model = empty_model(config)
        self._slots: dict[str, Slot] = {}
        self._unit_of: dict[str, Unit] = {}
        self._stacks: dict[Unit, Stack] = {}
        self._parts: dict[Unit, Parts] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="merge")

    @property
    def modules(self) -> int:
        """How many modules change."""
        return sum(len(unit) for unit in self.units)

    @property
    def largest(self) -> int:
        """Bytes of the largest module that is merged at once, as it is stored."""
        return max((self._at_once(unit) for unit in self.units), default=0)

    def bind(self, shards: Iterable[Shard]) -> dict[str, Slot]:
        """Learn where the source's tensors are; return those that come in addition, by the one they stand behind."""
        self._slots = {slot.name: slot for shard in shards for slot in shard.slots}
        self._unit_of = {name: unit for name in self._slots if (unit := self._unit(name)) is not None}
        self._check()
        self._stacks = self._find_stacks()
        self._parts = self._find_parts()
        if not self.unties or _OUTPUT in self._slots:
            return {}
        # The output embeddings take the dtype and shape of the input's, whose copy they were.
        slot = self._slots[_INPUT]
        self._unit_of[_OUTPUT] = EMBEDDINGS
        return {_INPUT: Slot(_OUTPUT, slot.dtype, slot.shape, slot.file, slot.start, slot.size)}

    def changes(self, slot: Slot) -> bool:
        return slot.name in self._unit_of

    def file_of(self, slots: tuple[Slot, ...]) -> "MergedFile":
        return MergedFile(self, slots)

    def merge(self, slots: Sequence[Slot]) -> dict[str, Tensor]:
        """The first of these tensors as merged, and as many of the following as are worth merging with it.

        One thread does all merging: torch computes with all of the machine's cores, and what each thread of its own
        allocates in passing would stay with it.
        """
        return self._thread.submit(self._merge_wanted, slots).result()

    def _merge_wanted(self, slots: Sequence[Slot]) -> dict[str, Tensor]:
        wanted = {slot.name for slot in slots}
        merged = {name: tensor for name, tensor in self._merge(slots).items() if name in wanted}
        for name, tensor in merged.items():
            if not is_finite(tensor):
                self._refuse_overflow(name)
        return merged

    def _merge(self, slots: Sequence[Slot]) -> dict[str, Tensor]:
        unit = self._unit_of[slots[0].name]
        stack, parts = self._stacks.get(unit), self._parts.get(unit)
        if parts is not None:
            most = _PART * parts.count // self._size(unit)
            names = [slot.name for slot in slots if self._unit_of.get(slot.name) == unit]
            return merge_parts(self._model, parts, most, names, self._adapters, self._read)
        if stack is None:
            return merge_units(self._model, self._next_units(slots), self._adapters, self._read)
        wanted = [expert for slot in slots if (expert := stack.expert_of(slot.name)) is not None]
        chosen = stack.chosen(wanted, self._experts_at_once(unit, stack))
        return merge_experts(self._model, stack, chosen, self._adapters, self._read)

    def _refuse_overflow(self, name: str) -> None:
        """Adapters of finite numbers can make infinite ones; what the source has of these stays as it is."""
        slot = self._slots.get(name) or self._slots[_INPUT]
        if not is_finite(read_tensor(self._source.path_of, slot)):
            return
        unit = self._unit_of[name]
        adapters = [each.name for each in self._adapters if each.keys.keys() & set(unit)]
        raise SwaaError(
            f"{' and '.join(adapters)}: merged, {name} holds NaN or infinity: the numbers are too large for "
            f"{slot.dtype}, so check lora_alpha and r, or take an earlier checkpoint"
        )

    def _next_units(self, slots: Sequence[Slot]) -> list[Unit]:
        units: list[Unit] = []
        size = 0
        for slot in slots:
            unit = self._unit_of.get(slot.name)
            if unit is None or unit in units or unit in self._stacks or unit in self._parts:
                continue
            size += self._size(unit)
            if units and size > _BATCH:
                break
            units.append(unit)
        return units

    def _size(self, unit: Unit) -> int:
        return sum(self._slots[name].size for path in unit for name in self._names[path])

    def _at_once(self, unit: Unit) -> int:
        size, stack = self._size(unit), self._stacks.get(unit)
        return size if stack is None else size * self._experts_at_once(unit, stack) // stack.count

    def _experts_at_once(self, unit: Unit, stack: Stack) -> int:
        return max(LEAST, min(stack.count, _BATCH * stack.count // self._size(unit)))

    def _find_stacks(self) -> dict[Unit, Stack]:
        alone = [unit for unit in self.units if len(unit) == 1]
        found = {unit: find_stack(self._model, unit[0], self._names[unit[0]], self._adapters) for unit in alone}
        return {unit: stack for unit, stack in found.items() if stack is not None}

    def _find_parts(self) -> dict[Unit, Parts]:
        large = [unit for unit in self.units if self._size(unit) > _BATCH]
        found = {unit: find_parts(self._model, unit, self._shapes(unit), self._adapters) for unit in large}
        return {unit: parts for unit, parts in found.items() if parts is not None}

    def _shapes(self, unit: Unit) -> dict[str, tuple[int, ...]]:
        return {name: self._slots[name].shape for path in unit for name in self._names[path]}

    def _read(self, path: str) -> dict[str, Tensor]:
        return {name: read_tensor(self._source.path_of, self._slots[name]) for name in self._stored(path)}

    def _stored(self, path: str) -> list[str]:
        """The tensors stored below a module; also of one that isn't merged itself."""
        return self._names.get(path) or [name for name in self._slots if name.startswith(f"{path}.")]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {path: [] for unit in self.units for path in unit}
        for name in self._slots:
            for path in _around(name):
                if path in names:
                    names[path].append(name)
        return names

    @cached_property
    def _homes(self) -> dict[str, Unit]:
        return {path: unit for unit in self.units for path in unit}

    def _unit(self, name: str) -> Unit | None:
        return next((self._homes[path] for path in _around(name) if path in self._homes), None)

    def _check(self) -> None:
        for unit in self.units:
            if not any(self._names[path] for path in unit):
                raise SwaaError(f"{self._source.name} holds nothing for {unit[0]}, which the adapter changes")
        for name in self._unit_of:
            dtype = self._slots[name].dtype
            if dtype not in DTYPES:
                raise SwaaError(
                    f"{self._source.name}: {name} is stored as {dtype}, and a LoRA cannot be merged into such weights: "
                    "give the model in bf16, fp16 or fp32"
                )
        if self._tied and EMBEDDINGS in self.units and {_INPUT, _OUTPUT} <= self._slots.keys():
            self._refuse_unequal()

    def _refuse_unequal(self) -> None:
        first, second = (read_tensor(self._source.path_of, self._slots[name]) for name in (_INPUT, _OUTPUT))
        if not torch.equal(first, second):
            raise SwaaError(
                f"{self._source.name}: config.json ties the embeddings, but {_INPUT} and {_OUTPUT} differ: "
                "set tie_word_embeddings to false in a copy of it"
            )


class MergedFile:
    """The merged tensors of one file, as they are asked for one after the other."""

    def __init__(self, merger: Merger, slots: tuple[Slot, ...]) -> None:
        self._merger, self._slots = merger, slots
        self._ready: dict[str, Tensor] = {}

    def data(self, position: int) -> memoryview:
        slot = self._slots[position]
        if slot.name not in self._ready:
            self._ready |= self._merger.merge(self._slots[position:])
        return raw(_as_stored(self._ready.pop(slot.name), slot))


def _around(name: str) -> list[str]:
    """The modules around a tensor, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _as_stored(tensor: Tensor, slot: Slot) -> Tensor:
    if tensor.dtype != DTYPES[slot.dtype] or tensor.numel() != slot.numel:
        made = f"{tensor.dtype} {list(tensor.shape)}"
        raise SwaaError(f"peft makes {slot.name} {made} of {slot.dtype} {list(slot.shape)}: merge it with peft itself")
    return tensor
