"""What cannot be converted is refused in one line that names the way out, and nothing is written."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import refused, run
from tests.support.sources import make_source, make_weights, write_json, write_weights

Change = Callable[[Path], object]


def config(**changes: Any) -> Change:
    """Change keys of config.json; `...` removes one."""

    def change(source: Path) -> None:
        values = {**json.loads((source / "config.json").read_text()), **changes}
        write_json(source / "config.json", {key: value for key, value in values.items() if value is not ...})

    return change


def write(name: str, data: bytes | dict[str, Any]) -> Change:
    """Put this into a file of the source."""
    return lambda source: (source / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


def only(name: str, data: bytes = b"{}") -> Change:
    """Nothing but this file."""

    def change(source: Path) -> None:
        for path in source.iterdir():
            path.unlink()
        (source / name).write_bytes(data)

    return change


def weights_as(name: str) -> Change:
    return lambda source: (source / "model.safetensors").rename(source / name)


def cut(source: Path) -> None:
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:-10])


def header(text: bytes, length: int | None = None) -> Change:
    return write("model.safetensors", struct.pack("<Q", len(text) if length is None else length) + text)


def index(weight_map: Any) -> Change:
    def change(source: Path) -> None:
        (source / "model.safetensors").unlink()
        write_json(source / "model.safetensors.index.json", {"weight_map": weight_map})

    return change


def sharded(source: Path) -> dict[str, Any]:
    """Rewrite the weights in two shards and return the index."""
    (source / "model.safetensors").unlink()
    write_weights(source, make_weights(json.loads((source / "config.json").read_text())), shards=2)
    found: dict[str, Any] = json.loads((source / "model.safetensors.index.json").read_text())
    return found


def missing_shard(source: Path) -> None:
    sharded(source)
    (source / "model-00002-of-00002.safetensors").unlink()


def no_index(source: Path) -> None:
    sharded(source)
    (source / "model.safetensors.index.json").unlink()
    (source / "model-00001-of-00002.safetensors").unlink()


def phantom_tensor(source: Path) -> None:
    found = sharded(source)
    found["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    write_json(source / "model.safetensors.index.json", found)


def same_tensor_twice(source: Path) -> None:
    sharded(source)
    first = (source / "model-00001-of-00002.safetensors").read_bytes()
    (source / "model-00002-of-00002.safetensors").write_bytes(first)


def link_out(source: Path) -> None:
    (source.parent / "secret").write_text("{}")
    (source / "generation_config.json").unlink()
    (source / "generation_config.json").symlink_to(source.parent / "secret")


SLIDING = {"use_sliding_window": True, "sliding_window": 64}
REFUSED: dict[str, tuple[Change, str]] = {
    "empty": (only("notes.txt"), "has no config.json"),
    "adapter": (
        only("adapter_config.json", b'{"base_model_name_or_path": "org/base"}'),
        "is a PEFT adapter, not a model: give org/base as SOURCE and the adapter as --lora",
    ),
    "adapter and model": (write("adapter_config.json", {}), "holds a model and a PEFT adapter"),
    "diffusers": (only("model_index.json"), "is a diffusers pipeline"),
    "original weights": (only("params.json"), "take the repo of the same model in -hf format"),
    "gguf": (only("model-q4.gguf"), "give the safetensors repo"),
    "broken config": (write("config.json", b"{"), "config.json is not valid JSON"),
    "binary config": (write("config.json", b"\xff\xfe\x00"), "config.json is not valid JSON"),
    "deep config": (write("config.json", b"[" * 100000), "config.json is not valid JSON"),
    "list config": (write("config.json", b"[]"), "must hold a JSON object"),
    "no architecture": (config(architectures=...), "architectures in config.json is None"),
    "two architectures": (config(architectures=["A", "B"]), "it must name one"),
    "odd architectures": (config(architectures=[3]), "it must name one"),
    "unknown architecture": (config(architectures=["GemmaForCausalLM"]), "is a GemmaForCausalLM; supported are"),
    "classifier": (config(architectures=["Qwen3ForSequenceClassification"]), "Qwen3ForCausalLM, Qwen3MoeForCausalLM"),
    "other model_type": (config(model_type="qwen2"), "model_type in config.json is 'qwen2'"),
    "no depth": (config(num_hidden_layers=...), "num_hidden_layers in config.json is None"),
    "absurd depth": (config(num_hidden_layers=10**9), "not a number of layers"),
    "depth true": (config(num_hidden_layers=True), "not a number of layers"),
    "encoder-decoder": (config(is_encoder_decoder=True), "is an encoder-decoder"),
    "remote code": (config(auto_map={"AutoModel": "x.Y"}), "needs its own remote code"),
    "remote tokenizer": (
        write("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}),
        "remote-code tokenizer",
    ),
    "converted": (config(swaa_config={}), "is already converted"),
    "converted by type": (config(model_type="swaa_qwen3"), "is already converted"),
    "sliding": (config(**SLIDING, max_window_layers=2), "use_sliding_window is true"),
    "sliding layer types": (
        config(layer_types=["full_attention", "sliding_attention"] * 2),
        "layer_types has sliding_attention",
    ),
    "linear layer types": (config(layer_types=["linear_attention"] * 4), "layer_types has linear_attention"),
    "rope without theta": (config(rope_parameters={"rope_type": "default"}, rope_theta=...), "no rope_theta"),
    "no weights": (weights_as("notes.txt"), "has no weights"),
    "bin": (weights_as("pytorch_model.bin"), "save_pretrained('source-safetensors')"),
    "sharded bin": (weights_as("pytorch_model-00001-of-00002.bin"), "has only pytorch_model*.bin weights"),
    "pth": (weights_as("consolidated.00.pth"), "has only *.pth weights"),
    "shards without index": (no_index, "has no model.safetensors.index.json, and of 2 shards only 1"),
    "index without map": (index(None), "has no weight_map"),
    "index with empty map": (index({}), "has no weight_map"),
    "index climbing out": (index({"a": "../../x.safetensors"}), "no safetensors file beside it"),
    "index with absolute path": (index({"a": "/etc/x.safetensors"}), "no safetensors file beside it"),
    "index with number": (index({"a": 3}), "no safetensors file beside it"),
    "missing shard": (missing_shard, "names model-00002-of-00002.safetensors, which is not there (1 of 2"),
    "phantom tensor": (phantom_tensor, "holds ghost.weight, but no shard does"),
    "tensor twice": (same_tensor_twice, "which model-00001-of-00002.safetensors holds too"),
    "cut weights": (cut, "model.safetensors is damaged (it should hold"),
    "empty weights": (write("model.safetensors", b""), "model.safetensors is damaged"),
    "absurd header": (header(b"{}", 2**62), "its header runs past its end"),
    "header is no JSON": (header(b"{{{{"), "model.safetensors is damaged"),
    "header is a list": (header(b"[1]"), "model.safetensors is damaged"),
    "overlapping tensors": (
        header(
            b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}'
        ),
        "the data of b overlaps",
    ),
    "tensor without shape": (header(b'{"a":{"dtype":"U8","data_offsets":[0,0]}}'), "model.safetensors is damaged"),
    "link out of the source": (link_out, "generation_config.json is a link out of the source folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, source: Path, tmp_path: Path) -> None:
    change, said = REFUSED[case]
    change(source)
    before = sorted(tmp_path.iterdir())
    assert said in refused(source, "--out", tmp_path / "out", "--quiet")
    assert sorted(tmp_path.iterdir()) == before


def test_moe_slides_whatever_max_window_layers_says(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen3_moe", **SLIDING, max_window_layers=4)
    assert "use_sliding_window is true" in refused(source, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        config(use_sliding_window=False, sliding_window=64, max_window_layers=2),
        config(**SLIDING, max_window_layers=4),
        # transformers' own default is layer 28.
        config(**SLIDING, max_window_layers=...),
        config(use_sliding_window=True, sliding_window=None, max_window_layers=0),
        config(layer_types=["full_attention"] * 4),
    ],
)
def test_switched_off_windows_do_no_harm(change: Change, source: Path, tmp_path: Path) -> None:
    change(source)
    assert run(source, "--out", tmp_path / "out", "--quiet").exit_code == 0


def test_base_model_without_template(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", chat_template=False)
    assert "has no chat template" in refused(source, "--out", tmp_path / "out", "--cot", "-q")


def test_source_code_is_never_run(source: Path, tmp_path: Path) -> None:
    (source / "modeling_qwen3.py").write_text("raise SystemExit('run!')")
    (source / "tokenization.py").write_text("raise SystemExit('run!')")
    assert run(source, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert not (tmp_path / "out/tokenization.py").exists()
