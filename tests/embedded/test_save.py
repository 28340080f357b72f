"""A repo that is loaded and saved again is the same repo."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

from tests.support.embed import FAMILIES, VERSION, Zoo, greedy, load, logits, one, pad_left, prompt
from tests.support.oracle import from_position

families = pytest.mark.parametrize("family", FAMILIES)
IDS = [prompt(90)]
ROPE: dict[str, tuple[str, dict[str, Any]]] = {
    "theta": ("qwen3", {"rope_theta": 1000000.0}),
    "llama3": (
        "llama",
        {
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "yarn": (
        "qwen2",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    ),
    "linear": ("qwen3", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
}


def _save(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def _config(repo: Path) -> dict[str, Any]:
    return json.loads((repo / "config.json").read_text(encoding="utf-8"))


def _code(repo: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in repo.glob("*.py")}


@families
def test_saved_and_loaded(zoo: Zoo, tmp_path: Path, family: str) -> None:
    model = zoo.model(family)
    saved = _save(model, tmp_path / f"saved_{family}")
    assert torch.equal(logits(load(saved), IDS), logits(model, IDS))
    assert _code(saved) == _code(zoo.repo(family))


@families
def test_twice(zoo: Zoo, tmp_path: Path, family: str) -> None:
    first = _save(load(zoo.repo(family)), tmp_path / f"first_{family}")
    second = _save(load(first), tmp_path / f"second_{family}")
    third = load(second)
    assert torch.equal(logits(third, IDS, dense_from=50), logits(zoo.model(family), IDS, dense_from=50))
    assert _code(second) == _code(zoo.repo(family))


@families
def test_the_config_keeps_what_is_ours(zoo: Zoo, tmp_path: Path, family: str) -> None:
    before = _config(zoo.repo(family))
    after = _config(_save(zoo.model(family), tmp_path / f"config_{family}"))
    for name in ("swaa_config", "auto_map", "model_type", "architectures"):
        assert after[name] == before[name]
    assert set(after["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}


@families
def test_no_weight_is_missing_or_renamed(zoo: Zoo, tmp_path: Path, family: str) -> None:
    saved = load_file(_save(zoo.model(family), tmp_path / f"weights_{family}") / "model.safetensors")
    source = load_file(zoo.source(family) / "model.safetensors")
    assert saved.keys() == source.keys()
    for name, weight in source.items():
        assert torch.equal(saved[name], weight), name


def test_in_shards(zoo: Zoo, tmp_path: Path) -> None:
    saved = _save(zoo.model(), tmp_path / "saved_in_shards", max_shard_size="200KB")
    assert len(list(saved.glob("*.safetensors"))) > 1
    assert torch.equal(logits(load(saved), IDS), logits(zoo.model(), IDS))


@pytest.mark.parametrize("rope", ROPE)
def test_rope(zoo: Zoo, tmp_path: Path, rope: str) -> None:
    """Versions write RoPE's fields in different ways; each reads what it wrote."""
    family, config = ROPE[rope]
    repo = zoo.repo(family, config=config)
    model = load(repo)
    expected = zoo.oracle(family, config=config).logits(IDS[0])
    assert (logits(model, IDS)[0] - expected).abs().max() < 2e-5 * expected.abs().max()
    saved = _save(model, tmp_path / f"rope_{rope}")
    assert torch.equal(logits(load(saved), IDS), logits(model, IDS))


@families
def test_tied_embeddings(zoo: Zoo, tmp_path: Path, family: str) -> None:
    config = {"tie_word_embeddings": True}
    model = zoo.model(family, config=config)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    saved = _save(model, tmp_path / f"tied_{family}")
    assert torch.equal(logits(load(saved), IDS), logits(model, IDS))


@families
def test_the_base_model(zoo: Zoo, tmp_path: Path, family: str) -> None:
    base = AutoModel.from_pretrained(zoo.repo(family), trust_remote_code=True)
    ids = torch.tensor(IDS)
    with torch.no_grad():
        expected = zoo.model(family).model(ids, dense_from=50).last_hidden_state
        assert torch.equal(base(ids, dense_from=50).last_hidden_state, expected)
        saved = _save(base, tmp_path / f"base_{family}")
        again = AutoModel.from_pretrained(saved, trust_remote_code=True)
        assert torch.equal(again(ids, dense_from=50).last_hidden_state, expected)


@families
def test_a_model_from_its_config(zoo: Zoo, family: str) -> None:
    config = AutoConfig.from_pretrained(zoo.repo(family), trust_remote_code=True)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=True).eval()
    model.load_state_dict(zoo.model(family).state_dict())
    assert torch.equal(logits(model, IDS), logits(zoo.model(family), IDS))


def test_the_config_object_survives(zoo: Zoo) -> None:
    config = AutoConfig.from_pretrained(zoo.repo(), trust_remote_code=True)
    for again in (type(config).from_dict(config.to_dict()), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again.to_dict() == config.to_dict()
        assert again.swaa_settings() == config.swaa_settings()


@families
def test_pickled_and_copied(zoo: Zoo, family: str) -> None:
    model = load(zoo.repo(family))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(again, IDS, dense_from=50), logits(model, IDS, dense_from=50))
        assert greedy(again, IDS[0], 4) == greedy(model, IDS[0], 4)


def test_a_copys_backend_is_its_own(zoo: Zoo) -> None:
    model = zoo.model()
    again = copy.deepcopy(model)
    again.set_attn_implementation("eager")
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        weights = again(one(IDS[0]), output_attentions=True).attentions
    assert weights[0].shape == (1, 4, 90, 90)


def test_two_recipes_in_one_process(zoo: Zoo) -> None:
    """Each model keeps to its own recipe while they take turns."""
    recipes: list[dict[str, Any]] = [{}, {"full_layers": ()}, {"window": 3, "fa_decode": False}]
    models = [load(zoo.repo(**recipe)) for recipe in recipes]
    for _ in range(2):
        for model, recipe in zip(models, recipes, strict=True):
            assert greedy(model, IDS[0], 5) == [zoo.oracle(**recipe).greedy(IDS[0], 5)]


def test_two_threads(zoo: Zoo) -> None:
    """Prompts of different lengths, generated from at once with one model."""
    lengths = (20, 45, 70, 100)
    expected = [zoo.oracle().greedy(prompt(length), 12) for length in lengths]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda length: greedy(zoo.model(), prompt(length), 12)[0], lengths))
    assert actual == expected


@families
def test_pipeline(zoo: Zoo, family: str) -> None:
    pipe = pipeline("text-generation", model=str(zoo.repo(family)), trust_remote_code=True, device="cpu")
    text = "The quick brown fox jumps over the lazy dog. " * 3
    ids = AutoTokenizer.from_pretrained(zoo.repo(family), trust_remote_code=True)(text)["input_ids"]
    answer = pipe(text, max_new_tokens=8, do_sample=False, return_tensors=True)[0]["generated_token_ids"]
    assert list(answer[: len(ids)]) == ids and len(answer) > len(ids)
    assert list(answer[len(ids) :]) == zoo.oracle(family).greedy(ids, len(answer) - len(ids))


def test_pipeline_of_a_batch(zoo: Zoo) -> None:
    repo = str(zoo.repo())
    tokenizer = AutoTokenizer.from_pretrained(repo, padding_side="left", trust_remote_code=True)
    pipe = pipeline("text-generation", model=repo, tokenizer=tokenizer, trust_remote_code=True, device="cpu")
    texts = ["short", "a longer text that is past the window of this model by far"]
    together = pipe(texts, max_new_tokens=6, do_sample=False, batch_size=2)
    assert together == [pipe(text, max_new_tokens=6, do_sample=False) for text in texts]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_half_precision(zoo: Zoo, backend: str, dtype: torch.dtype) -> None:
    model = load(zoo.repo(), backend, dtype=dtype)
    assert model.dtype == dtype
    actual = logits(model, IDS, dense_from=60)[0].float()
    expected = zoo.oracle().logits(IDS[0], from_position(60))
    assert (actual - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert len(greedy(model, pad_left([prompt(5), prompt(70)]), 5)[1]) == 5


@families
def test_experts_and_all_else_are_in_the_model(zoo: Zoo, family: str) -> None:
    """Every number on disk is somewhere in the loaded model."""
    model = zoo.model(family)
    memory = dict(model.state_dict())
    for name, weight in load_file(zoo.repo(family) / "model.safetensors").items():
        if name in memory:
            assert torch.equal(memory[name], weight), name
        else:
            assert torch.equal(_expert(memory, name), weight), name


def _expert(memory: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """From 5.0 on the experts of a layer are fused: gate and up, of all experts, in one tensor."""
    assert VERSION >= (5, 0)
    prefix, rest = name.split(".experts.")
    number, projection, _ = rest.split(".")
    if projection == "down_proj":
        return memory[f"{prefix}.experts.down_proj"][int(number)]
    gate, up = memory[f"{prefix}.experts.gate_up_proj"][int(number)].chunk(2)
    return gate if projection == "gate_proj" else up
