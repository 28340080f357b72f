"""Our attention layers inside vLLM's own models."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index

from swaa_convert.vllm.backends import full_backend, windowed_backend
from swaa_convert.vllm.kv_cache import PromptReuseSpec, SinkWindowSpec, from_spec
from swaa_convert.vllm.refusals import refuse_kernel, refuse_layer, refuse_options, warn_of_beams
from swaa_convert.vllm.shipped.swaa_mask import Rule
from swaa_convert.vllm.shipped.swaa_settings import SwaaSettings

# Any value makes vLLM's model runners pass each request's true prompt length to the attention backends.
_PASS_PROMPT_LENGTHS = 2**30


@dataclass(frozen=True)
class LayerRule:
    """What one layer sees and keeps.

    rule: of a windowed layer; None in a full one.
    fa_tail: the last tokens of a prompt that are dense too, where the rule has FA decode.
    reuse_generated: whether the KV of generated tokens serves later prompts: if no layer has FA decode.
    """

    rule: Rule | None
    fa_tail: int
    reuse_generated: bool


class SwaaAttention(Attention):
    """vLLM's attention layer with a rule of its own. `impl.swaa` holds it for the backend."""

    def __init__(self, *args: Any, swaa: LayerRule, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.swaa = swaa

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> Any:
        spec = super().get_kv_cache_spec(vllm_config)
        rule = self.swaa.rule
        releases = rule is not None and not rule.fa_decode
        # Without the hybrid manager all layers keep the same.
        if rule is not None and releases and not vllm_config.scheduler_config.disable_hybrid_kv_cache_manager:
            prompts = {"prompts_only": not self.swaa.reuse_generated, "fa_tail": self.swaa.fa_tail}
            return from_spec(spec, SinkWindowSpec, sliding_window=rule.window, keep_first=rule.keep_first, **prompts)
        return spec if self.swaa.reuse_generated else from_spec(spec, PromptReuseSpec, fa_tail=self.swaa.fa_tail)


def settings_of(vllm_config: VllmConfig) -> SwaaSettings | None:
    """The repo's settings; None if no layer is windowed."""
    config = vllm_config.model_config.hf_config
    settings = SwaaSettings.parse(getattr(config, "swaa_config", None), config.num_hidden_layers)
    windowed = any(_rule(settings, layer).rule for layer in range(config.num_hidden_layers))
    return settings if windowed else None


def put_swaa_into(model: nn.Module, vllm_config: VllmConfig, settings: SwaaSettings) -> None:
    """Replaces every attention layer of a stock model. Raises ValueError for what SWAA can't be served with."""
    depth = vllm_config.model_config.hf_config.num_hidden_layers
    rules = {layer: _rule(settings, layer) for layer in range(depth)}
    refuse_options(vllm_config, settings)
    if _any_fa_decode(settings):
        warn_of_beams()
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Attention)]
    for name, stock in found:
        refuse_layer(stock, Attention)
        _replace(model, name, _ours(stock, rules[extract_layer_index(stock.layer_name)], vllm_config))
    # vLLM 0.26's wrapper around transformers' modules keeps its layers beside them.
    beside = getattr(model, "attention_instances", {})
    for layer, stock in beside.items():
        refuse_layer(stock, Attention)
        beside[layer] = _ours(stock, rules[layer], vllm_config)
    if not found and not beside:
        raise ValueError(f"{type(model).__name__}: found no attention layer to put SWAA into: update swaa-convert")
    vllm_config.model_config.model_arch_config.rswa_window = _PASS_PROMPT_LENGTHS


def _rule(settings: SwaaSettings, layer: int) -> LayerRule:
    window = settings.sliding_window_size
    rule = None
    if window is not None and settings.windowed(layer):
        rule = Rule(window, settings.keep_first, settings.fa_decode(layer))
    return LayerRule(rule, settings.fa_tail, not _any_fa_decode(settings))


def _any_fa_decode(settings: SwaaSettings) -> bool:
    choice = settings.force_fa_decode
    return choice if isinstance(choice, bool) else any(settings.windowed(layer) for layer in choice)


def _ours(stock: Attention, swaa: LayerRule, vllm_config: VllmConfig) -> SwaaAttention:
    chosen, rule = stock.attn_backend, swaa.rule
    backend = full_backend(chosen) if rule is None else windowed_backend(chosen, rule.fa_decode)
    # Its name is taken by the layer that goes.
    del vllm_config.compilation_config.static_forward_context[stock.layer_name]
    ours = SwaaAttention(
        stock.num_heads,
        stock.head_size,
        stock.impl.scale,
        num_kv_heads=stock.num_kv_heads,
        cache_config=vllm_config.cache_config,
        quant_config=vllm_config.quant_config,
        prefix=stock.layer_name,
        attn_backend=backend,
        swaa=swaa,
    )
    if rule is not None:
        refuse_kernel(ours.impl)
    # Backends know their layer's implementation only.
    ours.impl.swaa = swaa
    return ours


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
