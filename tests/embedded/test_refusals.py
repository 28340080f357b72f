"""What is not supported says so in one line; full attention is never served in silence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.embed import VERSION, Zoo, greedy, load, logits, one, prompt
from tests.support.oracle import assert_close


def _edited(zoo: Zoo, tmp_path: Path, name: str, **swaa: Any) -> Path:
    """A copy of the repo with another `swaa_config`; `...` removes a key."""
    repo = tmp_path / name
    shutil.copytree(zoo.repo(), repo)
    config = json.loads((repo / "config.json").read_text(encoding="utf-8"))
    values = {**config["swaa_config"], **swaa}
    config["swaa_config"] = {key: value for key, value in values.items() if value is not ...}
    (repo / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return repo


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"keep_frist": 2}, "did you mean 'keep_first'"),
    "unknown": ({"colour": 2}, "unknown key 'colour'"),
    "window": ({"sliding_window_size": 0}, "sliding_window_size"),
    "window_type": ({"sliding_window_size": "8"}, "sliding_window_size"),
    "window_bool": ({"sliding_window_size": True}, "sliding_window_size"),
    "sinks": ({"keep_first": -1}, "keep_first"),
    "layer": ({"non_sliding_layers": [1, 9]}, "layer 9"),
    "layer_negative": ({"non_sliding_layers": [-1]}, "layer -1"),
    "layers_type": ({"non_sliding_layers": "odd"}, "non_sliding_layers"),
    "decode_layer": ({"force_fa_decode": [4]}, "layer 4"),
    "decode_type": ({"force_fa_decode": "yes"}, "force_fa_decode"),
    "tail": ({"force_fa_decode": False, "fa_tail": 3}, "fa_tail=3 needs force_fa_decode"),
    "version": ({"version": 2}, "version 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_settings(zoo: Zoo, tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        load(_edited(zoo, tmp_path, f"bad_{name}", **change))
    assert "\n" not in str(error.value)


def test_missing_settings(zoo: Zoo, tmp_path: Path) -> None:
    repo = tmp_path / "without_settings"
    shutil.copytree(zoo.repo(), repo)
    config = json.loads((repo / "config.json").read_text(encoding="utf-8"))
    del config["swaa_config"]
    (repo / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="no swaa_config"):
        load(repo)


def test_settings_left_out_have_their_defaults(zoo: Zoo, tmp_path: Path) -> None:
    keys = ("fa_tail", "force_fa_decode", "version", "non_sliding_layers", "keep_first")
    model = load(_edited(zoo, tmp_path, "defaults", **dict.fromkeys(keys, ...)))
    oracle = zoo.oracle(full_layers=(), keep_first=0, fa_decode=False)
    assert_close(logits(model, [prompt(90)])[0], oracle.logits(prompt(90)))


# "vllm" and "sglang" are what servers set; transformers knows the paged ones for continuous batching.
@pytest.mark.parametrize("backend", ["vllm", "sglang", "paged|eager", "nonsense", "flash_attention_9"])
def test_backends_without_a_kernel(zoo: Zoo, backend: str) -> None:
    with pytest.raises(ValueError):
        load(zoo.repo(), backend)


@pytest.mark.filterwarnings("ignore:The `paged:FutureWarning")
def test_the_paged_prefix(zoo: Zoo) -> None:
    """Older versions have kernels of that name; the newest take the prefix away, which is then plain sdpa."""
    try:
        model = load(zoo.repo(), "paged|sdpa")
    except ValueError as error:
        assert "paged" in str(error)
    else:
        assert torch.equal(logits(model, [prompt(90)]), logits(zoo.model(), [prompt(90)]))


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_a_servers_backend_is_named(zoo: Zoo, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server registers its own attention first, so transformers lets its name pass."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    mapping = type(ALL_ATTENTION_FUNCTIONS)._global_mapping
    monkeypatch.setitem(mapping, backend, ALL_ATTENTION_FUNCTIONS["sdpa"])
    with pytest.raises(ValueError, match=f"attn_implementation='{backend}'.*pip install swaa-convert"):
        load(zoo.repo(), backend)


def test_kernels_of_the_hub_have_a_way_out(zoo: Zoo) -> None:
    """transformers names one where flash-attn is missing: asking for flash_attention_2 again would not help."""
    model = load(zoo.repo())
    model.config._attn_implementation_internal = "kernels-community/flash-attn2"
    with pytest.raises(ValueError, match="kernels of the Hub are not used; install flash-attn itself, or load with"):
        logits(model, [prompt(20)])


@pytest.mark.parametrize("backend", ["vllm", "paged|sdpa", None])
def test_a_backend_set_later_is_refused_when_run(zoo: Zoo, backend: str | None) -> None:
    """Servers write the field past every check."""
    model = load(zoo.repo())
    model.config._attn_implementation_internal = backend
    with pytest.raises(ValueError, match="no attention kernel"):
        logits(model, [prompt(20)])
    with pytest.raises(ValueError, match="no attention kernel"):
        greedy(model, prompt(20), 2)


def test_an_absent_library_gives_transformers_own_error(zoo: Zoo) -> None:
    with pytest.raises(ImportError, match="[Ff]lash"):
        load(zoo.repo(), "flash_attention_2")


@pytest.mark.parametrize("name", ["generate_batch", "init_continuous_batching", "continuous_batching_context_manager"])
def test_continuous_batching(zoo: Zoo, name: str) -> None:
    with pytest.raises(NotImplementedError, match="continuous batching"):
        getattr(zoo.model(), name)([prompt(5)])


def test_continuous_batching_through_generate(zoo: Zoo) -> None:
    """cache_implementation="paged" is the same thing in another dress."""
    with pytest.raises((NotImplementedError, ValueError)):
        greedy(zoo.model(), prompt(5), 2, cache_implementation="paged")


def test_the_backend_can_be_changed(zoo: Zoo) -> None:
    """And the numbers stay."""
    model, ids = load(zoo.repo()), [prompt(90)]
    expected = logits(zoo.model(), ids, dense_from=60)
    for backend in ("eager", "sdpa", "eager"):
        model.set_attn_implementation(backend)
        actual = logits(model, ids, dense_from=60)
        assert_close(actual, expected)
        assert torch.equal(actual, logits(zoo.model(backend=backend), ids, dense_from=60))


def test_a_nonsense_backend_later(zoo: Zoo) -> None:
    model = load(zoo.repo())
    with pytest.raises(ValueError):
        model.set_attn_implementation("nonsense")
        logits(model, [prompt(20)])
    assert VERSION >= (4, 57)


def test_weights_are_returned_by_eager_attention_only(zoo: Zoo) -> None:
    """As in the stock model."""
    model = load(zoo.repo())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        assert model(one(prompt(40)), output_attentions=True).attentions[0].shape == (1, 4, 40, 40)


def test_a_stock_class_does_not_run_it(zoo: Zoo) -> None:
    """Without trust_remote_code nothing is loaded: not our code, and no stock model in its place."""
    with pytest.raises((ValueError, KeyError, OSError)):
        AutoModelForCausalLM.from_pretrained(zoo.repo(), trust_remote_code=False)


def test_a_layer_alone_is_refused(zoo: Zoo) -> None:
    model = zoo.model()
    hidden = torch.zeros(1, 4, 64)
    rope = model.model.rotary_emb(hidden, torch.arange(4)[None])
    with pytest.raises(RuntimeError, match="outside of its model's forward pass"):
        model.model.layers[0].self_attn(hidden, position_embeddings=rope, attention_mask=None)
