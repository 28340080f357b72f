"""What a repo costs at one length, beside its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swaa_convert.inspect.figures import Rule, full_attention, kv_bytes_per_key


@dataclass(frozen=True)
class Cost:
    """Attention and memory for one sequence; `full_` is what the source model needs.

    Parameters
    ----------
    tokens:
        The prompt's length.
    prompt_pairs:
        Query-key pairs, all layers, to read the prompt.
    token_pairs:
        Query-key pairs, all layers, for the next token behind the prompt.
    kv_bytes:
        Bytes of the KV cache that holds the prompt.
    """

    tokens: int
    prompt_pairs: int
    full_prompt_pairs: int
    token_pairs: int
    full_token_pairs: int
    kv_bytes: int
    full_kv_bytes: int

    @property
    def prompt_share(self) -> float:
        return self.prompt_pairs / self.full_prompt_pairs

    @property
    def token_share(self) -> float:
        return self.token_pairs / self.full_token_pairs

    @property
    def kv_share(self) -> float:
        return self.kv_bytes / self.full_kv_bytes


def cost_at(rule: Rule, config: Mapping[str, Any], tokens: int) -> Cost:
    """The cost of a prompt of `tokens` tokens, at least one."""
    source, per_key = full_attention(rule.depth), kv_bytes_per_key(config)
    return Cost(
        tokens=tokens,
        prompt_pairs=rule.pairs(tokens),
        full_prompt_pairs=source.pairs(tokens),
        token_pairs=rule.next_token_pairs(tokens),
        full_token_pairs=source.next_token_pairs(tokens),
        kv_bytes=rule.cached_keys(tokens) * per_key,
        full_kv_bytes=source.cached_keys(tokens) * per_key,
    )
