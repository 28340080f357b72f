"""What SWAA costs, counted exactly: query-key pairs of attention, and the keys that a KV cache keeps.

Positions count from 0. A windowed query i sees min(i + 1, window + keep_first) keys: its window and the
sinks, each key once. Dense queries (full layers, and FA decode from `dense_from` on) see i + 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """The SWAA rule of one model, layer by layer.

    Parameters
    ----------
    depth:
        How many layers the model has.
    window:
        Keys that a windowed query sees, itself included, or None if no layer is windowed.
    keep_first:
        The first tokens (sinks), which every query sees.
    full_layers:
        The layers that keep full attention.
    fa_decode_layers:
        The windowed layers in which generated tokens see everything.
    fa_tail:
        How many last prompt tokens see everything too, in the layers with FA decode.
    """

    depth: int
    window: int | None
    keep_first: int
    full_layers: tuple[int, ...]
    fa_decode_layers: tuple[int, ...]
    fa_tail: int

    @classmethod
    def from_config(cls, swaa_config: Mapping[str, Any], depth: int) -> "Rule":
        """The rule that config.json's `swaa_config` asks of a model of `depth` layers."""
        window = swaa_config.get("sliding_window_size")
        listed = range(depth) if window is None else swaa_config.get("non_sliding_layers", ())
        full = set(listed) & set(range(depth))
        force = swaa_config.get("force_fa_decode", False)
        decode = set(range(depth) if force is True else force or ()) & set(range(depth))
        return cls(
            depth=depth,
            window=window,
            keep_first=swaa_config.get("keep_first", 0),
            full_layers=tuple(sorted(full)),
            fa_decode_layers=tuple(sorted(decode - full)),
            fa_tail=swaa_config.get("fa_tail", 0),
        )

    @property
    def windowed_layers(self) -> tuple[int, ...]:
        """The layers that are not full, with FA decode or without."""
        return tuple(layer for layer in range(self.depth) if layer not in set(self.full_layers))

    @property
    def span(self) -> int | None:
        """The most keys that a windowed query sees; up to this length the model equals its source."""
        return None if self.window is None else self.window + self.keep_first

    def attends(self, layer: int, query: int, key: int, prompt: int) -> bool:
        """Whether the query at one position sees the key at another, behind a prompt of `prompt` tokens."""
        if key > query or self.window is None or layer in self.full_layers:
            return key <= query
        dense = layer in self.fa_decode_layers and query >= prompt - self.fa_tail
        return dense or key < self.keep_first or query - key < self.window

    def layer_pairs(self, layer: int, prompt: int, generated: int = 0) -> int:
        """Query-key pairs that one layer computes to read `prompt` tokens and generate `generated` more.

        The last generated token is never read back, so `generated` tokens take `generated - 1` queries beyond
        the prompt's.
        """
        queries = prompt + max(generated - 1, 0)
        if self.span is None or layer in self.full_layers:
            return _dense_pairs(queries)
        if layer not in self.fa_decode_layers:
            return _windowed_pairs(queries, self.span)
        dense_from = max(prompt - self.fa_tail, 0)
        return _windowed_pairs(dense_from, self.span) + _dense_pairs(queries) - _dense_pairs(dense_from)

    def pairs(self, prompt: int, generated: int = 0) -> int:
        """Query-key pairs of all layers; a head of attention computes each pair once."""
        return sum(self.layer_pairs(layer, prompt, generated) for layer in range(self.depth))

    def next_token_pairs(self, tokens: int) -> int:
        """Query-key pairs, all layers, of a generated token that is fed in behind `tokens` others."""
        return self.pairs(tokens, generated=2) - self.pairs(tokens)

    def cached_keys(self, tokens: int) -> int:
        """Keys, all layers, that the KV cache keeps of a sequence of `tokens` tokens.

        A windowed layer without FA decode lets go of every key that no later query can see.
        """
        evicting = 0 if self.span is None else self.depth - len(self.full_layers) - len(self.fa_decode_layers)
        kept = tokens if self.span is None else min(tokens, self.span - 1)
        return (self.depth - evicting) * tokens + evicting * kept


def full_attention(depth: int) -> Rule:
    """The rule of the source model: every layer sees everything."""
    return Rule(depth, None, 0, tuple(range(depth)), (), 0)


def attention_work(swaa_config: Mapping[str, Any], depth: int, prompt: int, generated: int) -> float:
    """Attention work relative to full attention, 0 to 1.

    Work is query-key pairs over all layers, for reading `prompt` tokens and generating `generated` more.
    """
    rule = Rule.from_config(swaa_config, depth)
    everything = full_attention(depth).pairs(prompt, generated)
    return rule.pairs(prompt, generated) / everything if everything else 1.0


def kv_bytes_per_key(config: Mapping[str, Any]) -> int:
    """Bytes that one layer's cache holds per token: a key and a value for every KV head."""
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    bits = re.search(r"\d+", kv_dtype(config))
    return 2 * kv_heads * head_dim * int(bits[0] if bits else 32) // 8


def kv_dtype(config: Mapping[str, Any]) -> str:
    """The element type that the cache takes from the weights; float32 when config.json names none."""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def _dense_pairs(queries: int) -> int:
    return queries * (queries + 1) // 2


def _windowed_pairs(queries: int, span: int) -> int:
    short = min(queries, span)
    return _dense_pairs(short) + (queries - short) * span
