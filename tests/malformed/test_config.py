"""config.json: what is no config, and configs of models that cannot be converted."""

from pathlib import Path

import pytest

from tests.malformed.damage import Cases, Change, config, huge, refuses, without, write
from tests.support.command import refused, run
from tests.support.sources import make_source

AGAIN = "fetch"
MEND = "mend config.json, or fetch the source again"
SLIDING = {"use_sliding_window": True, "sliding_window": 64}
NOT_JSON = "config.json is not valid JSON ("


def text(data: bytes) -> Change:
    return write("config.json", data)


FILES: Cases = {
    "missing": (without("config.json"), "has no config.json"),
    "empty": (text(b""), NOT_JSON, AGAIN),
    "broken": (text(b"{"), NOT_JSON, AGAIN),
    "a list": (text(b"[]"), "must hold a JSON object, not a list"),
    "a number": (text(b"3"), "must hold a JSON object, not a int"),
    "null": (text(b"null"), "must hold a JSON object, not a NoneType"),
    "claims 400 MB": (huge("config.json"), "config.json is absurdly large (400000000 bytes)"),
    "nested deeply": (text(b'{"a":' * 100_000), NOT_JSON, "nested too deeply"),
    "a list nested deeply": (text(b"[" * 100_000), NOT_JSON, "nested too deeply"),
    "byte-order mark": (text(b"\xef\xbb\xbf{}"), NOT_JSON, "save it as UTF-8 without one"),
    "UTF-16": (text("{}".encode("utf-16")), NOT_JSON, "save it as UTF-8"),
    "not UTF-8": (text(b'{"a": "\xff"}'), NOT_JSON, "not UTF-8"),
    "half a character": (text(b'{"_name_or_path": "\\ud800"}'), NOT_JSON, "not UTF-8"),
    "NaN": (text(b'{"rope_theta": NaN}'), NOT_JSON, "NaN is no number"),
    "Infinity": (text(b'{"rope_theta": -Infinity}'), NOT_JSON, "-Infinity is no number"),
    "beyond all floats": (text(b'{"rope_theta": 1e999}'), NOT_JSON, "1e999 is no number"),
    "a number of 5000 digits": (text(b'{"vocab_size": ' + b"9" * 5000 + b"}"), NOT_JSON),
    "a key twice": (text(b'{"vocab_size": 1, "vocab_size": 2}'), NOT_JSON, "'vocab_size' stands twice"),
    "a comment": (text(b'{"vocab_size": 1} // mine'), NOT_JSON),
    "bytes of nothing": (text(bytes(100)), NOT_JSON),
}
KINDS: Cases = {
    "no architecture": (config(architectures=...), "architectures in config.json is None", 'as in ["Qwen3'),
    "null architecture": (config(architectures=None), "architectures in config.json is None"),
    "no list": (config(architectures="Qwen3ForCausalLM"), "architectures in config.json is 'Qwen3ForCausalLM'"),
    "two architectures": (config(architectures=["A", "B"]), "it must name one"),
    "a number for a name": (config(architectures=[3]), "it must name one"),
    "unknown architecture": (
        config(architectures=["XlmForCausalLM"]),
        "is a XlmForCausalLM; supported are",
    ),
    "a name with a line break": (config(architectures=["A\nB\x1b[31m"]), "is a A\\nB\\x1b[31m; supported are"),
    "an endless name": (config(architectures=["A" * 10**6]), "supported are", "Starcoder2"),
    "classifier": (
        config(architectures=["Qwen3ForSequenceClassification"]),
        "is no causal language model",
        "XxxForCausalLM",
    ),
    "other model_type": (config(model_type="qwen2"), "model_type in config.json is 'qwen2'", "has 'qwen3'"),
    "model_type is a number": (config(model_type=3), "model_type in config.json is 3"),
    "no model_type": (config(model_type=...), "model_type in config.json is None"),
    "encoder-decoder": (config(is_encoder_decoder=True), "is an encoder-decoder: only decoder-only"),
    "converted": (config(swaa_config={}), "is already converted: give the source"),
    "converted by type": (config(model_type="swaa_qwen3"), "is already converted"),
    "sliding": (config(**SLIDING, max_window_layers=2), "use_sliding_window is true in config.json"),
    "sliding layers": (config(layer_types=["full_attention", "sliding_attention"] * 2), "layer_types has sliding"),
    "linear layers": (config(layer_types=["linear_attention"] * 4), "layer_types has linear_attention"),
    "hybrid": (config(layer_types=["full_attention"] * 3 + ["mamba"]), "layer_types has mamba in config.json"),
    "rope without theta": (config(rope_parameters={"rope_type": "default"}, rope_theta=...), "has no rope_theta"),
}
# Key, what stands there, what must stand there.
VALUES = [
    *[("num_hidden_layers", value, "not a number of layers") for value in ("4", 0, -1, True, 4.0, None, 10**9, [4])],
    *[(key, "64", "a whole number from 1 on") for key in ("hidden_size", "intermediate_size", "vocab_size")],
    *[("num_attention_heads", value, "a whole number from 1 on") for value in (..., None, 0, -4, 4.5, True, {})],
    *[("num_key_value_heads", value, "a whole number from 1 on") for value in (0, "2", -1)],
    *[("head_dim", value, "a whole number from 1 on") for value in ("wide", 0, [32])],
    ("num_key_value_heads", 3, "a divisor of num_attention_heads, which is 4"),
    ("max_position_embeddings", "long", "a whole number from 1 on"),
    *[("rms_norm_eps", value, "a number") for value in ("small", True)],
    *[("rope_theta", value, "a number") for value in ("10000", [1])],
    *[("rope_theta", value, "more than 0") for value in (0, -1.0)],
    *[(key, "x", "an object or null") for key in ("rope_scaling", "rope_parameters", "quantization_config")],
    *[("tie_word_embeddings", value, "true or false") for value in ("yes", 1)],
    ("use_sliding_window", "false", "true or false"),
    ("sliding_window", "4k", "a whole number or null"),
    ("max_window_layers", 2.5, "a whole number or null"),
    *[("layer_types", value, "a list of 4 names") for value in ("full", {}, ["full_attention"], [1, 2, 3, 4])],
    ("torch_dtype", "float7", "one of float64, float32"),
    ("attn_implementation", "evil/kernels", "code from elsewhere is never run"),
    ("_attn_implementation", {"": "evil/kernels"}, "code from elsewhere is never run"),
]
# What only transformers knows.
LATE = [
    {"hidden_act": "nonsense"},
    {"pad_token_id": 10**6},
    {"rope_scaling": {"rope_type": "nonsense", "factor": 2.0}},
    {"rope_parameters": {"rope_theta": "x"}},
]


@pytest.mark.parametrize("case", FILES)
def test_no_config(case: str, source: Path) -> None:
    refuses(source, FILES[case][0], *FILES[case][1:], "source")


@pytest.mark.parametrize("case", KINDS)
def test_another_kind_of_model(case: str, source: Path) -> None:
    refuses(source, KINDS[case][0], *KINDS[case][1:])


@pytest.mark.parametrize(("key", "value", "said"), VALUES)
def test_wrong_value(key: str, value: object, said: str, source: Path) -> None:
    refuses(source, config(**{key: value}), f"source: {key} in config.json is ", said)


@pytest.mark.parametrize("changes", LATE)
def test_what_only_transformers_knows(changes: dict[str, object], source: Path) -> None:
    refuses(source, config(**changes), "makes no model of config.json (", MEND)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"num_experts_per_tok": 9}, "at most the number of experts, which is 4"), ({"decoder_sparse_step": 0}, "from 1")],
)
def test_experts(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    refuses(make_source(tmp_path / "source", "qwen3_moe"), config(**changes), said, MEND)


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
        config(attn_implementation="flash_attention_2", head_dim=32, auto_map={}),
    ],
)
def test_what_does_no_harm(change: Change, source: Path, tmp_path: Path) -> None:
    change(source)
    result = run(source, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 0, result.output
