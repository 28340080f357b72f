"""The truth that the embedded model is held to: the rule once more, as plainly as it can be written.

Nothing here knows the code in modeling/. The rule becomes one mask per layer, built token by token, and the *stock*
model of transformers runs under these masks: eagerly, without a cache and without padding, the whole sequence anew
for each token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Dense = Callable[[int], bool]


def no_query(position: int) -> bool:
    """No query is dense."""
    return False


def from_position(start: int) -> Dense:
    """Queries at `start` and later are dense."""
    return lambda position: position >= start


def rule_mask(length: int, window: int | None, keep_first: int, dense: Dense = no_query) -> Tensor:
    """Which keys each query of one sequence attends to, bool (length, length). A window of None: a full layer."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        before = query + 1
        if window is None or dense(query):
            mask[query, :before] = True
        else:
            mask[query, max(0, before - window) : before] = True
            mask[query, : min(keep_first, before)] = True
    return mask


class Oracle:
    """A stock model that sees what `swaa_config` lets it see."""

    def __init__(self, stock: Any, swaa_config: dict[str, Any]) -> None:
        self.stock = stock
        self.swaa = swaa_config
        self.fa_tail: int = swaa_config["fa_tail"]

    def mask(self, layer: int, length: int, dense: Dense = no_query) -> Tensor:
        """The mask of one layer, bool (length, length)."""
        window = None if layer in self.swaa["non_sliding_layers"] else self.swaa["sliding_window_size"]
        decodes = self.swaa["force_fa_decode"]
        decodes = decodes if isinstance(decodes, bool) else layer in decodes
        return rule_mask(length, window, self.swaa["keep_first"], dense if decodes else no_query)

    def logits(self, ids: Sequence[int], dense: Dense = no_query, **options: Any) -> Tensor:
        """Logits (length, vocabulary) of one sequence, for `logits_with_grad`'s options."""
        with torch.no_grad():
            return self.logits_with_grad(ids, dense, **options)

    def logits_with_grad(
        self,
        ids: Sequence[int],
        dense: Dense = no_query,
        rope: Sequence[int] | None = None,
        also: Tensor | None = None,
    ) -> Tensor:
        """Logits (length, vocabulary) of one sequence.

        rope: its position_ids, if not 0, 1, 2, …; also: a mask, bool (length, length), that hides more in every layer.
        """
        positions = range(len(ids)) if rope is None else rope
        with self.ruled(dense, also):
            return self.stock(
                input_ids=torch.tensor([list(ids)]), position_ids=torch.tensor([list(positions)]), use_cache=False
            ).logits[0]

    def greedy(self, prompt: Sequence[int], new: int, dense: Dense | None = None) -> list[int]:
        """The next `new` tokens, each the likeliest."""
        dense = self.after(prompt) if dense is None else dense
        ids = list(prompt)
        for _ in range(new):
            ids.append(int(self.logits(ids, dense)[-1].argmax()))
        return ids[len(prompt) :]

    def generate(self, prompt: Sequence[int], **options: Any) -> Tensor:
        """transformers' own generation, without a cache, with the stock model seeing only what it may."""
        with self.ruled(self.after(prompt)):
            return self.stock.generate(torch.tensor([list(prompt)]), use_cache=False, **options)

    def after(self, prompt: Sequence[int]) -> Dense:
        """Everything generated after `prompt` is dense, and the prompt's tail."""
        return from_position(max(len(prompt) - self.fa_tail, 0))

    @contextmanager
    def ruled(self, dense: Dense, also: Tensor | None = None) -> Iterator[None]:
        """Inside, each layer of the stock model runs under its mask."""
        layers = self.stock.model.layers
        hooks = [
            layer.register_forward_pre_hook(self._mask_hook(index, dense, also), with_kwargs=True)
            for index, layer in enumerate(layers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _mask_hook(self, layer: int, dense: Dense, also: Tensor | None) -> Callable[..., Any]:
        def replace(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            assert "attention_mask" in kwargs, "this version hands its layers the mask in another way"
            mask = self.mask(layer, hidden.shape[1], dense)
            mask = mask if also is None else mask & also
            additive = torch.zeros(mask.shape, dtype=hidden.dtype).masked_fill(~mask, torch.finfo(hidden.dtype).min)
            return args, {**kwargs, "attention_mask": additive[None, None]}

        return replace


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the scale of what is expected."""
    assert actual.shape == expected.shape
    scale = expected.abs().max()
    assert (actual - expected).abs().max() <= tolerance * scale
