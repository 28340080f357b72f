"""What is refused by the options of the server, line by line, and that vLLM still has those options."""

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import CacheConfig, ParallelConfig

from swaa_convert.vllm.refusals import refuse_layer, refuse_options

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "decode context parallelism": (
        {"parallel_config": {"decode_context_parallel_size": 2}},
        "decode_context_parallel_size=2: use tensor parallelism",
    ),
    "prefill context parallelism": (
        {"parallel_config": {"prefill_context_parallel_size": 2}},
        "prefill_context_parallel_size=2: use tensor parallelism",
    ),
    "dual batch overlap": ({"parallel_config": {"use_ubatching": True}}, "dual batch overlap (enable_dbo)"),
    "drafts by a model": ({"speculative_config": {"method": "eagle3"}}, "speculative decoding by 'eagle3': use one of"),
    "a KV connector": ({"kv_transfer_config": {}}, "a KV connector (kv_transfer_config)"),
    "a quantized cache": ({"cache_config": {"cache_dtype": "fp8"}}, "kv_cache_dtype='fp8': leave it at 'auto'"),
}
LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "a window": ({"sliding_window": 5}, "has a window of its own"),
    "shared KV": ({"kv_sharing_target_layer_name": "model.layers.0"}, "shares another layer's KV"),
    "ALiBi": ({"impl": {"alibi_slopes": [1.0]}}, "has ALiBi"),
    "a cap": ({"impl": {"logits_soft_cap": 30.0}}, "caps its scores"),
    "learned sinks": ({"impl": {"sinks": [0.0]}}, "has learned sinks"),
}


def _config(**changed: dict[str, Any]) -> Any:
    parts: dict[str, Any] = {
        "parallel_config": {},
        "cache_config": {"cache_dtype": "auto"},
        "speculative_config": None,
        "kv_transfer_config": None,
        **changed,
    }
    return SimpleNamespace(**{name: None if part is None else SimpleNamespace(**part) for name, part in parts.items()})


def test_plain_options_pass() -> None:
    refuse_options(_config(speculative_config={"method": "ngram"}), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", REFUSED)
def test_options(case: str) -> None:
    changed, line = REFUSED[case]
    with pytest.raises(ValueError, match="SWAA can't be served with ") as error:
        refuse_options(_config(**changed), None)  # type: ignore[arg-type]
    assert line in str(error.value) and "\n" not in str(error.value)


def test_the_options_have_these_names() -> None:
    """A name that vLLM changed would be refused no more."""
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size", "use_ubatching"):
        assert hasattr(ParallelConfig(), name)
    assert hasattr(CacheConfig(), "cache_dtype")


def _layer(**changed: Any) -> Any:
    impl = SimpleNamespace(**changed.pop("impl", {}))
    plain = {
        "sliding_window": None,
        "kv_sharing_target_layer_name": None,
        "layer_name": "model.layers.1.self_attn.attn",
    }
    return SimpleNamespace(impl=impl, **{**plain, **changed})


def test_plain_layers_pass() -> None:
    refuse_layer(_layer(), SimpleNamespace)


@pytest.mark.parametrize("case", LAYERS)
def test_layers(case: str) -> None:
    changed, line = LAYERS[case]
    with pytest.raises(ValueError, match="model.layers.1.self_attn.attn, whose attention ") as error:
        refuse_layer(_layer(**changed), SimpleNamespace)
    assert f"{line}: use the repository with transformers" in str(error.value)


def test_layers_of_another_kind() -> None:
    with pytest.raises(ValueError, match="is a kind of its own"):
        refuse_layer(_layer(), dict)
