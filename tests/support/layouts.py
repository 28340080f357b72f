"""What each family's weights are called on disk, and their shapes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Layout:
    """Where a family departs from Llama.

    fused: the one matrix that holds query, key and value.
    output: the attention's last matrix.
    mlp: its matrices: the first ones take the hidden size, the last one gives it; `gate_up_proj` is two in one.
    biased: matrices that have a bias.
    head_norms: norms of queries and keys, by name: over a head, over all heads, or of each head ("each").
    norms: a layer's own.
    final: the norm after the last layer, where it has weights.
    norm_bias: norms have a bias, those of queries and keys too.
    more: other tensors of a layer.
    """

    fused: str | None = None
    output: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    biased: tuple[str, ...] = ()
    head_norms: tuple[str, str] | None = None
    norms_over: str = "head"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    final: str | None = "norm"
    norm_bias: bool = False
    more: dict[str, tuple[int, ...]] = field(default_factory=dict)


_QK_NORM = ("q_norm", "k_norm")
_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_FUSED_MLP = ("gate_up_proj", "down_proj")
_PLAIN_MLP = ("up_proj", "down_proj")
_QKV = ("q_proj", "k_proj", "v_proj")
_GLM4_NORMS = ("post_self_attn_layernorm", "post_mlp_layernorm")
_XIELU = {"mlp.act_fn.alpha_p": (1,), "mlp.act_fn.alpha_n": (1,), "mlp.act_fn.beta": (), "mlp.act_fn.eps": ()}
LAYOUTS: dict[str, Layout] = {
    "qwen3": Layout(head_norms=_QK_NORM),
    "qwen3_moe": Layout(head_norms=_QK_NORM),
    "qwen2": Layout(biased=_QKV),
    "phi3": Layout(fused="qkv_proj", mlp=_FUSED_MLP),
    "olmo": Layout(norms=(), final=None),
    "olmo2": Layout(head_norms=_QK_NORM, norms_over="all", norms=_POST_NORMS),
    "cohere": Layout(head_norms=_QK_NORM, norms_over="each", norms=("input_layernorm",)),
    "starcoder2": Layout(mlp=("c_fc", "c_proj"), biased=(*_QKV, "o_proj", "c_fc", "c_proj"), norm_bias=True),
    "glm": Layout(mlp=_FUSED_MLP, biased=_QKV),
    "glm4": Layout(mlp=_FUSED_MLP, biased=_QKV, norms=(*Layout.norms, *_GLM4_NORMS)),
    "seed_oss": Layout(biased=_QKV),
    "arcee": Layout(mlp=_PLAIN_MLP),
    "hunyuan_v1_dense": Layout(head_norms=("query_layernorm", "key_layernorm")),
    "exaone4": Layout(head_norms=_QK_NORM, norms=_POST_NORMS),
    "apertus": Layout(
        mlp=_PLAIN_MLP, head_norms=_QK_NORM, norms=("attention_layernorm", "feedforward_layernorm"), more=_XIELU
    ),
    "apertus1p5_text": Layout(
        mlp=_PLAIN_MLP, head_norms=_QK_NORM, norms=("attention_layernorm", "feedforward_layernorm"), more=_XIELU
    ),
    "bitnet": Layout(more={"self_attn.attn_sub_norm.weight": (64,), "mlp.ffn_sub_norm.weight": (96,)}),
    "hyperclovax": Layout(norms=(*Layout.norms, "post_norm1", "post_norm2")),
    "jais2": Layout(mlp=_PLAIN_MLP, biased=(*_QKV, "o_proj", *_PLAIN_MLP), norm_bias=True),
    "nanochat": Layout(mlp=("fc1", "fc2"), norms=(), final=None),
    "persimmon": Layout(
        fused="query_key_value",
        output="dense",
        mlp=("dense_h_to_4h", "dense_4h_to_h"),
        biased=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
        head_norms=("q_layernorm", "k_layernorm"),
        final="final_layernorm",
        norm_bias=True,
    ),
    "phi": Layout(
        output="dense",
        mlp=("fc1", "fc2"),
        biased=(*_QKV, "dense", "fc1", "fc2", "lm_head"),
        norms=("input_layernorm",),
        final="final_layernorm",
        norm_bias=True,
    ),
}


def layout_of(config: dict[str, Any]) -> Layout:
    return LAYOUTS.get(config["model_type"], Layout())


def layer_shapes(config: dict[str, Any]) -> Shapes:
    """Names and shapes of one layer's weights."""
    layout = layout_of(config)
    yield from _attention(config, layout)
    yield from _experts(config) if "num_experts" in config else _mlp(config, layout)
    for name in layout.norms:
        yield from norm_shapes(name, config, layout)
    yield from layout.more.items()


def norm_shapes(name: str, config: dict[str, Any], layout: Layout) -> Shapes:
    yield f"{name}.weight", (config["hidden_size"],)
    if layout.norm_bias:
        yield f"{name}.bias", (config["hidden_size"],)


def matrix_shapes(name: str, rows: int, columns: int, layout: Layout) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    if name.rpartition(".")[2] in layout.biased:
        yield f"{name}.bias", (rows,)


def _attention(config: dict[str, Any], layout: Layout) -> Shapes:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    query, key = heads * head, kv_heads * head
    if layout.fused is not None:
        yield from matrix_shapes(f"self_attn.{layout.fused}", query + 2 * key, hidden, layout)
    else:
        for name, width in zip(_QKV, (query, key, key), strict=True):
            yield from matrix_shapes(f"self_attn.{name}", width, hidden, layout)
    yield from matrix_shapes(f"self_attn.{layout.output}", hidden, query, layout)
    for name, count in zip(layout.head_norms or (), (heads, kv_heads), strict=False):
        over = {"head": (head,), "all": (count * head,), "each": (count, head)}[layout.norms_over]
        yield f"self_attn.{name}.weight", over
        if layout.norm_bias:
            yield f"self_attn.{name}.bias", over


def _mlp(config: dict[str, Any], layout: Layout) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    *first, last = layout.mlp
    for name in first:
        yield from matrix_shapes(f"mlp.{name}", 2 * inner if name == "gate_up_proj" else inner, hidden, layout)
    yield from matrix_shapes(f"mlp.{last}", hidden, inner, layout)


def _experts(config: dict[str, Any]) -> Shapes:
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    yield "mlp.gate.weight", (config["num_experts"], hidden)
    for expert in range(config["num_experts"]):
        yield f"mlp.experts.{expert}.gate_proj.weight", (inner, hidden)
        yield f"mlp.experts.{expert}.up_proj.weight", (inner, hidden)
        yield f"mlp.experts.{expert}.down_proj.weight", (hidden, inner)
