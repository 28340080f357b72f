"""The experts of a layer, merged a few at a time where they are one stack in memory.

peft computes the change of a whole stack at once, in float32, and takes several times the layer's size for it. Each
expert's change is a product of its own, so that a stack of a few gives the bits of the whole one, if each matrix
begins at an address of the same kind: the products of odd little matrices are rounded by where they lie.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swaa_convert.merge.loaded import LoadedAdapter
from swaa_convert.merge.model import piece

# Numbers between places that vector instructions treat alike: 64 bytes of float32.
_ALIKE = 16
_FACTOR = re.compile(r"(?:base_layer\.)*lora_([AB])\.weight")
_ONE = re.compile(r"(\d+)\.(.+)")
# peft handles a stack of one otherwise.
LEAST = 2


@dataclass(frozen=True)
class Stack:
    """Experts that are one stack in memory and one by one on disk.

    Parameters
    ----------
    path:
        Their module.
    count:
        How many there are.
    """

    path: str
    count: int

    def expert_of(self, name: str) -> int | None:
        """The number of the expert that a stored tensor belongs to."""
        found = _ONE.fullmatch(name.removeprefix(f"{self.path}."))
        return int(found[1]) if found and name.startswith(f"{self.path}.") else None

    def chosen(self, wanted: Sequence[int], most: int) -> list[int]:
        """The first `most` of the experts that are wanted, and another one if there were only one."""
        some = list(dict.fromkeys(wanted))[: max(LEAST, most)]
        rest = (expert for expert in range(self.count) if expert not in some)
        return some if len(some) >= LEAST else [*some, next(rest)]

    def model(self, model: Any, chosen: Sequence[int]) -> Any:
        """The part of the empty model that holds them, with as many experts as are chosen."""
        few = piece(model, [self.path])
        few.config.num_experts = len(chosen)
        experts = few.get_submodule(self.path)
        for name, whole in experts.named_parameters():
            shape = (len(chosen), *whole.shape[1:])
            experts._parameters[name] = nn.Parameter(torch.empty(shape, dtype=whole.dtype, device="meta"))
        return few

    def adapter(self, adapter: LoadedAdapter, chosen: Sequence[int]) -> LoadedAdapter:
        """An adapter with no more for this module than its share in the chosen experts."""
        tensors = {}
        for key in adapter.keys[self.path]:
            front, inner = _split(key, self.path)
            if one := _ONE.fullmatch(inner):
                if int(one[1]) in chosen:
                    tensors[f"{front}{chosen.index(int(one[1]))}.{one[2]}"] = adapter.tensors[key]
            else:
                tensors[key] = self._factor(adapter.tensors[key], inner, chosen)
        keys = {**adapter.keys, self.path: list(tensors)}
        return replace(adapter, tensors={**adapter.tensors, **tensors}, keys=keys)

    def _factor(self, whole: Tensor, inner: str, chosen: Sequence[int]) -> Tensor:
        """The rows of lora_A are ordered by expert, the columns of lora_B by rank."""
        if _is_a(inner):
            return whole.view(self.count, -1, whole.shape[1])[chosen].flatten(0, 1)
        return whole.view(len(whole), -1, self.count)[:, :, chosen].flatten(1)

    def renumbered(self, stored: Mapping[str, Tensor], numbers: Mapping[int, int]) -> dict[str, Tensor]:
        """The stored tensors of experts under other numbers."""
        found = {name: self.expert_of(name) for name in stored}
        return {
            f"{self.path}.{numbers[number]}.{name.removeprefix(f'{self.path}.{number}.')}": stored[name]
            for name, number in found.items()
            if number is not None
        }


def find_stack(model: Any, path: str, stored: Collection[str], adapters: Sequence[LoadedAdapter]) -> Stack | None:
    """The stack that a module is, if it can be merged in parts with the bits of the whole."""
    parameters = dict(model.get_submodule(path).named_parameters())
    counts = {parameter.shape[0] for parameter in parameters.values() if parameter.dim() == 3}
    if len(counts) != 1 or not all(_is_stack(name, parameter) for name, parameter in parameters.items()):
        return None
    stack = Stack(path, counts.pop())
    if {stack.expert_of(name) for name in stored} != set(range(stack.count)) or stack.count <= LEAST:
        return None
    touching = [adapter for adapter in adapters if path in adapter.keys]
    return stack if all(_can_be_parted(adapter, stack) for adapter in touching) else None


def _is_stack(name: str, parameter: Tensor) -> bool:
    return "." not in name and parameter.dim() == 3 and parameter[0].numel() % _ALIKE == 0


def _can_be_parted(adapter: LoadedAdapter, stack: Stack) -> bool:
    if stack.path not in adapter.targets:
        return False
    for key in adapter.keys[stack.path]:
        inner, tensor = _split(key, stack.path)[1], adapter.tensors[key]
        of_one = tensor.numel()
        if _FACTOR.fullmatch(inner):
            of_one, rest = divmod(of_one, stack.count)
            if rest or tensor.dim() != 2 or tensor.shape[0 if _is_a(inner) else 1] % stack.count:
                return False
        elif not _ONE.fullmatch(inner):
            return False
        if of_one % _ALIKE:
            return False
    return True


def _split(key: str, path: str) -> tuple[str, str]:
    """A key of an adapter up to the module `path`, and from there."""
    front, _, inner = key.partition(f"{path}.")
    return f"{front}{path}.", inner


def _is_a(inner: str) -> bool:
    return inner.endswith("lora_A.weight")
