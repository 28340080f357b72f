"""What is refused by the options of the server, line by line, and that vLLM still has those options."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from vllm.config import CacheConfig, ParallelConfig
from vllm.logger import _print_warning_once, init_logger

from swaa_convert.families import families
from swaa_convert.vllm import layers, models
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
    "a KV connector": ({"kv_transfer_config": {}}, "a KV connector (kv_transfer_config, kv_offloading_size)"),
    "a quantized cache": (
        {"cache_config": {"cache_dtype": "fp8"}},
        "kv_cache_dtype='fp8': use 'auto', or 'bfloat16' if",
    ),
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
    for name in ("cache_dtype", "kv_offloading_size"):
        assert hasattr(CacheConfig(), name)


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


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """What the plugin says where vLLM shows it, whatever level this process has and whatever it has said already."""
    logger = init_logger("vllm.swaa_convert.vllm.refusals")
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level("WARNING", logger.name)
    _print_warning_once.cache_clear()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("choice, times", [(True, 1), ([1], 1), ([0], 0), (False, 0)], ids=str)
def test_beams_are_warned_of(log: pytest.LogCaptureFixture, choice: bool | list[int], times: int) -> None:
    """Once, where a windowed layer has FA decode: layer 0 is full, 1 isn't."""
    recipe = {"sliding_window_size": 8, "keep_first": 2, "force_fa_decode": choice, "non_sliding_layers": [0]}
    config = _config(model_config={"hf_config": SimpleNamespace(num_hidden_layers=2, swaa_config=recipe)})
    settings = layers.settings_of(config)
    assert settings is not None
    for _ in range(2):
        with pytest.raises(ValueError, match="found no attention layer"):
            layers.put_swaa_into(nn.Module(), config, settings)
    assert len(log.messages) == times and all("beam_search" in line for line in log.messages)


@pytest.mark.parametrize(
    "lacking, line",
    [
        ("vllm.v1.kv_cache_spec_registry", "SWAA is served with vLLM 0.26 to 0.32, and this is .*: .*spec_registry"),
        ("swaa_convert.vllm.backends", "^import of swaa_convert.vllm.backends halted"),
    ],
)
def test_versions_are_named_where_vllm_lacks_something(
    monkeypatch: pytest.MonkeyPatch, lacking: str, line: str
) -> None:
    for name in ("layers", "kv_cache"):
        monkeypatch.delitem(sys.modules, f"swaa_convert.vllm.{name}", raising=False)
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(ImportError, match=line):
        getattr(models, families()[0].swaa_architecture)(vllm_config=None)
