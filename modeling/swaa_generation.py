"""What every SWAA causal language model adds to the stock one: it knows which tokens are prompt."""

import copy
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar, NoReturn

# What PyTorch 2.6 makes of compiled code here looks for it by this name.
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from .swaa_cache import CACHE, SinkWindowLayer, cache_in, capacity
from .swaa_refusals import exits_early, refuse_broken

# Where the dense queries of the running `generate` begin. A context variable, because `generate` rejects keywords
# that the stock forward doesn't declare, calls itself for assistants, and may run in several threads at once.
# With it stands whose call it is: transformers 5.0 has an assistant prepare inputs during the main model's call.
_dense_from: ContextVar[tuple[int, int | Tensor] | None] = ContextVar("dense_from", default=None)


class SwaaGenerationMixin:
    """Fixes the prompt's length before generation starts. To be listed before the stock causal language model."""

    config: Any
    generation_config: Any
    model: Any
    base_model_class: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        # The stock constructor builds a stock base model: one without layers costs nothing and is replaced at once.
        hollow = copy.copy(config)
        hollow.num_hidden_layers = 0
        super().__init__(hollow)  # type: ignore[call-arg]
        self.config = config
        self.model = self.base_model_class(config)
        self.post_init()  # type: ignore[attr-defined]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if SwaaGenerationMixin in cls.__bases__:
            cls.forward = _with_generated_tokens(cls.forward)  # type: ignore[attr-defined]

    def generate(
        self, inputs: Tensor | None = None, *args: Any, dense_from: int | Tensor | None = None, **kwargs: Any
    ) -> Any:
        """`GenerationMixin.generate`, with the tokens after the prompt dense where FA decode is on.

        dense_from: where they begin, if not at the end of what is passed in: an index in the padded row, or a
            tensor of one per row.
        """
        # transformers 5.0 hands an assistant what it prepared, and a model may be its own.
        kwargs.pop("dense_last", None)
        refuse_broken(self, inputs, args, kwargs)
        if dense_from is None:
            prompt = prompt_length(inputs, kwargs)
            dense_from = _tail_start(prompt, self.model.swaa.fa_tail, kwargs.get("attention_mask"))
        shortens, depth = exits_early(self, args, kwargs), self.config.num_hidden_layers
        token = _dense_from.set((id(self), dense_from))
        try:
            return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]
        finally:
            _dense_from.reset(token)
            if shortens:
                # A draft that exits early cuts the model short, and an exception in it would leave it so.
                self.config.num_hidden_layers = depth

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The stock inputs, and where dense queries begin."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        running = _dense_from.get()
        if running is not None and running[0] == id(self):
            inputs |= _dense_queries(running[1], inputs)
        return inputs

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
        """Static caches get the 2D mask too, for a 4D one hides which tokens are padding. It covers all slots, so that
        a compiled step is one graph however many are filled; flash-attention tells by its length which are.
        """
        if attention_mask is None or str(kwargs["config"]._attn_implementation).startswith("flash_attention"):
            return attention_mask
        if bool((attention_mask != 0).all()):
            return None
        free = max(capacity(cache_in(kwargs)) - attention_mask.shape[1], 0)
        return torch.nn.functional.pad(attention_mask, (0, free))

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any) -> Any:
        result = super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)  # type: ignore[misc]
        if model_kwargs.get(CACHE) is None and generation_config.use_cache is not False:
            # transformers 5.0 leaves the default cache to the first forward pass, too late for assisted decoding.
            model_kwargs[CACHE] = DynamicCache(config=self.config)
        cache = model_kwargs.get(CACHE)
        if cache is not None:
            self.model.swaa_cache(cache)
            _record_past(cache, bool(getattr(generation_config, "is_assistant", False)))
        return result

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Assisted decoding takes tokens back, and its assistant must see the same prompt."""
        model_kwargs = kwargs.get("model_kwargs", {})
        _record_past(model_kwargs.get(CACHE), True)
        candidates = super()._get_candidate_generator(*args, **kwargs)  # type: ignore[misc]
        same_tokens = kwargs.get("assistant_tokenizer") is None
        if same_tokens and _knows_prompts(getattr(candidates, "assistant_model", None)):
            running = _dense_from.get()
            candidates.assistant_kwargs["dense_from"] = None if running is None else running[1]
        return candidates

    def _no_continuous_batching(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            "SWAA models don't support continuous batching, whose paged attention would ignore their windows: "
            "use generate() with a padded batch"
        )

    generate_batch = init_continuous_batching = continuous_batching_context_manager = _no_continuous_batching


def _knows_prompts(assistant: Any) -> bool:
    """Whether it is an SWAA model. Another repo's is of that repo's own copy of this class, so its name must do."""
    return any(base.__name__ == SwaaGenerationMixin.__name__ for base in type(assistant).__mro__)


def _with_generated_tokens(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Tells the base model which tokens the labels mark as generated. Keeps the signature, which Trainer reads."""
    place = list(inspect.signature(forward).parameters).index("labels") - 1

    @functools.wraps(forward)
    def with_generated_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:
        labels = args[place] if len(args) > place else kwargs.get("labels")
        if labels is not None and self.model.swaa.force_fa_decode:
            kwargs["generated_tokens"] = labels != -100
        return forward(self, *args, **kwargs)

    return with_generated_tokens


def prompt_length(inputs: Tensor | None, kwargs: dict[str, Any]) -> int:
    """Length of the padded prompt, cached turns included."""
    tokens = kwargs.get("inputs_embeds")
    if tokens is None:
        tokens = inputs if inputs is not None else kwargs.get("input_ids")
    mask = kwargs.get("attention_mask")
    # Without any input generation starts from one token; with a cache the mask may be longer than the new tokens.
    length = 1 if tokens is None else tokens.shape[1]
    return max(length, mask.shape[-1]) if mask is not None else length


def _tail_start(prompt: int, tail: int, mask: Any) -> int | Tensor:
    """Index from which on the last `tail` real tokens of the prompt stand: one per row where padding is among them."""
    start = max(prompt - tail, 0)
    if tail == 0 or getattr(mask, "shape", ())[1:] != (prompt,) or bool((mask[:, start:] != 0).all()):
        return start
    left: Tensor = (mask != 0).long().flip(1).cumsum(dim=1).flip(1)
    return (left > tail).sum(dim=1)


def _dense_queries(dense_from: int | Tensor, inputs: dict[str, Any]) -> dict[str, Any]:
    """Which of the new queries are dense, counted from the last: adapters may put virtual tokens before the first."""
    cache = cache_in(inputs)
    past = 0 if cache is None else int(cache.get_seq_length())
    tokens = inputs["input_ids"] if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
    new = tokens.shape[1]
    last = past + new - dense_from
    if isinstance(last, Tensor):
        if bool((last < new).any()):
            return {"dense_last": last.clamp(min=0).repeat_interleave(tokens.shape[0] // last.numel())}
    elif last < new:
        return {"dense_last": max(last, 0)}
    # A compiled decoding step is the same graph for every prompt.
    return {"dense_from": 0}


def _record_past(cache: Any, record: bool) -> None:
    """Windowed layers keep what a rejected draft would need, while drafts are made."""
    for layer in getattr(cache, "layers", ()):
        if isinstance(layer, SinkWindowLayer):
            layer.record_past = record
