"""One timed run: greedy `generate`, with the clock read after every token."""

import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from swaa_convert.bench.memory import stored_bytes, tensors_in


@dataclass(frozen=True)
class Run:
    """What one run took.

    Parameters
    ----------
    first:
        Seconds from the call to the first token.
    later:
        Seconds of each token after the first.
    kv_bytes:
        Bytes that the KV cache holds at the end.
    peak_bytes:
        The most bytes held during the run over what was held before (weights); None where that isn't counted.
    """

    first: float
    later: tuple[float, ...]
    kv_bytes: int
    peak_bytes: int | None

    @property
    def per_token(self) -> float | None:
        """Seconds per token after the first: the median."""
        return median(self.later) if self.later else None


class Clock(StoppingCriteria):
    """Reads the time after every token and never stops anything.

    Waiting for the device costs nothing extra: `generate` itself looks at every token before the next.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.now()
        self.stamps: list[float] = []

    def now(self) -> float:
        """Seconds, when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.stamps.append(self.now())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def measure(model: Any, ids: Tensor, new_tokens: int, cache: str = "dynamic") -> Run:
    """Read the prompts [batch, length] and generate `new_tokens` for each; nothing is kept alive."""
    gc.collect()
    before = _start_counting(ids.device)
    clock = Clock(ids.device)
    filled = generate(model, ids, new_tokens, clock, cache)
    times = [clock.start, *clock.stamps]
    steps = [after - earlier for earlier, after in zip(times, times[1:], strict=False)]
    if len(steps) != new_tokens:
        raise RuntimeError(f"{len(steps)} tokens were generated instead of {new_tokens}")
    return Run(steps[0], tuple(steps[1:]), stored_bytes(tensors_in(filled)), _peak(ids.device, before))


def generate(model: Any, ids: Tensor, new_tokens: int, watcher: StoppingCriteria, cache: str = "dynamic") -> Any:
    """Greedy generation that nothing ends early; returns the KV cache, of the kind that `Settings.cache` names."""
    config = GenerationConfig(
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=True,
        # Without an end of text, no token stops it; the mask says that none of them is padding either.
        eos_token_id=None,
        pad_token_id=0,
        cache_implementation=None if cache == "dynamic" else cache,
    )
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        stopping_criteria=StoppingCriteriaList([watcher]),
    )
    # transformers 5.24 named it anew.
    return output["cache"] if "cache" in output else output["past_key_values"]


def random_prompts(vocabulary: int, batch: int, length: int, device: str) -> Tensor:
    """Token ids [batch, length], the same for the same length."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, vocabulary, (batch, length), generator=generator).to(device)


def _start_counting(device: torch.device) -> int | None:
    """Bytes that are held now, from which the peak is counted."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device, before: int | None) -> int | None:
    return None if before is None else torch.cuda.max_memory_allocated(device) - before
