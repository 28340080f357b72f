"""What vLLM keeps of each layer's keys and values, and what it may reuse for another request."""

import copy
from dataclasses import dataclass, fields
from typing import Any

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_utils import resolve_block_hashes
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager, SlidingWindowManager
from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec, SlidingWindowSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry


@dataclass(frozen=True, kw_only=True)
class PromptReuseSpec(FullAttentionSpec):
    """Keeps everything; only the KV of prompts is reused.

    With FA decode a generated token's hidden states, and so its KV in every layer, come from dense queries. As part
    of a later prompt the same token is windowed.

    fa_tail: the last tokens of a prompt that are dense too.
    """

    prompts_only: bool = True
    fa_tail: int = 0

    @classmethod
    def merge(cls, specs: list[Any]) -> Any:
        return _merge_equal(specs)


@dataclass(frozen=True, kw_only=True)
class SinkWindowSpec(SlidingWindowSpec):
    """Keeps the blocks of the first `keep_first` tokens and of the window.

    prompts_only, fa_tail: as in `PromptReuseSpec`, where other layers have FA decode.
    """

    keep_first: int = 0
    prompts_only: bool = False
    fa_tail: int = 0

    def max_admission_blocks_per_request(self, max_in_flight_tokens: int, max_model_len: int) -> int:
        window = super().max_admission_blocks_per_request(
            max_in_flight_tokens=max_in_flight_tokens, max_model_len=max_model_len
        )
        return int(min(window + cdiv(self.keep_first, self.block_size), cdiv(max_model_len, self.block_size) + 1))

    @classmethod
    def merge(cls, specs: list[Any]) -> Any:
        return _merge_equal(specs)


def _merge_equal(specs: list[Any]) -> Any:
    # vLLM asks by trying. A spec that absorbed another kind would free blocks that the other still needs.
    assert all(type(spec) is type(specs[0]) and spec == specs[0] for spec in specs), "different kinds of KV cache"
    return copy.deepcopy(specs[0])


def from_spec(spec: AttentionSpec, kind: type[Any], **more: Any) -> Any:
    """A spec of another kind for the same layer."""
    names = {field.name for field in fields(kind) if field.init} & {field.name for field in fields(spec)}
    shared = {name: getattr(spec, name) for name in names if name not in ("sliding_window", "attention_chunk_size")}
    return kind(**shared, **more)


class _PromptsOnly:
    """Of a manager of vLLM's: caches only what every prompt that starts alike would compute alike."""

    kv_cache_spec: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prompts: dict[str, int] = {}
        self._scheduled: dict[str, int] = {}

    def allocate_new_blocks(
        self, request_id: str, num_tokens: int, num_tokens_main_model: int, *args: Any, **kwargs: Any
    ) -> Any:
        # `cache_blocks`, which follows, gets this number rounded down to whole blocks.
        self._scheduled[request_id] = num_tokens_main_model
        return super().allocate_new_blocks(  # type: ignore[misc]
            request_id, num_tokens, num_tokens_main_model, *args, **kwargs
        )

    def cache_blocks(self, request: Any, num_tokens: int, *args: Any, **kwargs: Any) -> None:
        spec = self.kv_cache_spec
        if spec.prompts_only:
            # The later inputs of a session stand behind what it generated: its first one counts.
            prompt = self._prompts.setdefault(request.request_id, request.num_prompt_tokens)
            if self._scheduled.get(request.request_id, num_tokens) > prompt:
                # A generated token is read. Should the request be preempted and start anew, a longer prompt of somebody
                # else may have cached what it generated, windowed.
                request.skip_reading_prefix_cache = True
            num_tokens = max(0, min(num_tokens, prompt - spec.fa_tail))
        super().cache_blocks(request, num_tokens, *args, **kwargs)  # type: ignore[misc]

    def free(self, request_id: str) -> None:
        self._prompts.pop(request_id, None)
        self._scheduled.pop(request_id, None)
        super().free(request_id)  # type: ignore[misc]


class PromptReuseManager(_PromptsOnly, FullAttentionManager):
    """Looks up no dense tail of a prompt."""

    @classmethod
    def find_longest_cache_hit(cls, block_hashes: Any, max_length: int, *args: Any, **kwargs: Any) -> Any:
        tail = kwargs["kv_cache_spec"].fa_tail
        if tail:
            # Who looks here has generated a token at most; the length is known to a block, from below.
            prompt = len(block_hashes) * kwargs["block_pool"].hash_block_size - 1
            max_length = max(0, min(max_length, prompt - tail))
        return super().find_longest_cache_hit(block_hashes, max_length, *args, **kwargs)


class SinkWindowManager(_PromptsOnly, SlidingWindowManager):
    """Frees the blocks between the sinks and the window."""

    def __init__(self, kv_cache_spec: SinkWindowSpec, *args: Any, **kwargs: Any) -> None:
        super().__init__(kv_cache_spec, *args, **kwargs)
        self.sink_blocks = cdiv(kv_cache_spec.keep_first, self.block_size)

    def get_num_skipped_tokens(self, num_computed_tokens: int) -> int:
        """None at the front, where the sinks are."""
        return 0

    def remove_skipped_blocks(self, request_id: str, computed: int, *args: Any, **kwargs: Any) -> None:
        """Frees what no query from position `computed` on can see."""
        retained = self.sliding_window - 1 + getattr(self, "extra_retained_tokens", 0)
        first_needed = max(0, computed - retained) // self.block_size
        self._remove_blocks_in_range(request_id, self.sink_blocks, first_needed)

    @classmethod
    def find_longest_cache_hit(cls, block_hashes: Any, max_length: int, *args: Any, **kwargs: Any) -> Any:
        """The longest prefix whose sinks and last window are cached; the blocks between them stay empty."""
        spec, pool = kwargs["kv_cache_spec"], kwargs["block_pool"]
        # A prefix_match_unit may be finer than blocks. What is resolved here stays so when it is resolved again.
        block_hashes = resolve_block_hashes(block_hashes, pool.hash_block_size, spec.block_size)
        found, length = super().find_longest_cache_hit(block_hashes, max_length, *args, **kwargs)
        for index in range(min(cdiv(spec.keep_first, spec.block_size), length // spec.block_size)):
            sinks = pool.get_cached_block(block_hashes[index], kwargs["kv_cache_group_ids"])
            if not sinks:
                # Whatever follows needs this sink.
                return cls.find_longest_cache_hit(block_hashes, index * spec.block_size, *args, **kwargs)
            for blocks, sink in zip(found, sinks, strict=True):
                blocks[index] = sink
        return found, length

    @classmethod
    def reachable_block_mask(cls, *args: Any, **kwargs: Any) -> None:
        """Every block may serve: sinks are needed for hits of any length."""
        return None


def _register() -> None:
    # The check has vLLM register its own kinds, which it does only while there are none.
    KVCacheSpecRegistry.check_kv_cache_spec_registry({})
    KVCacheSpecRegistry.register(PromptReuseSpec, PromptReuseManager, FullAttentionSpec)
    KVCacheSpecRegistry.register(SinkWindowSpec, SinkWindowManager, SlidingWindowSpec)


# Whichever process meets one of our specs has imported this file, and so knows its manager.
_register()
