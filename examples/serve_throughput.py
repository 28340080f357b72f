"""Throughput of long prompts under vLLM, beside the same vLLM on the source model. Needs a GPU, vLLM and swaa-convert.

    python examples/serve_throughput.py --requests 8

Weights are random (`load_format="dummy"`): only the shape of Qwen3-4B counts, nothing is downloaded. Each configuration
runs in a process of its own; the table says how many prompt and answer tokens a second all requests together got.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from swaa_convert.config_json import converted_config, dump_json, swaa_config
from swaa_convert.families import families
from swaa_convert.recipe import Recipe

QWEN3_4B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 262144,
    "rope_theta": 5000000,
    "rope_scaling": None,
    "rms_norm_eps": 1e-06,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 36,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "torch_dtype": "bfloat16",
}
LAYERS = range(36)
# The layers that stay full, FA decode, and how much faster than full attention the paper found it (one H100).
CONFIGURATIONS: dict[str, tuple[list[int], bool, float]] = {
    "FA decode, half full": ([layer for layer in LAYERS if layer % 2], True, 1.26),
    "FA decode, quarter full": ([layer for layer in LAYERS if layer % 4 == 1], True, 1.45),
    "FA decode, none full": ([], True, 1.71),
    "no FA decode, half full": ([layer for layer in LAYERS if layer % 2], False, 1.79),
    "no FA decode, none full": ([], False, 8.2),
}
SOURCE = "full attention (source)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100, help="prompts, all sent at once (default: 100)")
    parser.add_argument("--prompt", type=int, default=131072, help="tokens of each prompt (default: 131072)")
    parser.add_argument("--new", type=int, default=512, help="tokens of each answer (default: 512)")
    parser.add_argument("--window", type=int, default=2048, help="keys in the window (default: 2048)")
    parser.add_argument("--keep-first", type=int, default=100, help="sinks (default: 100)")
    parser.add_argument("--only", action="append", help="only this configuration, by its name (repeatable)")
    parser.add_argument("--layers", type=int, default=36, help="of the model; fewer for a trial (default: 36)")
    parser.add_argument("--engine", type=json.loads, default={}, help="more options of vLLM's engine, as JSON")
    parser.add_argument("--repo", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repo:
        print(json.dumps(measure(options)))
        return
    names = [SOURCE, *CONFIGURATIONS]
    for name in options.only or ():
        if name not in names:
            parser.error(f"no configuration {name!r}; there are: {', '.join(map(repr, names))}")
    failed = compare([name for name in names if name in (options.only or names)], options)
    if failed:
        sys.exit(f"not measured, see vLLM's messages above: {', '.join(failed)}")


def compare(names: list[str], options: argparse.Namespace) -> list[str]:
    """Measures each configuration and prints the table's row as soon as it is known. Returns those that failed."""
    print(f"| configuration | tokens/s | KV capacity | of {SOURCE} | paper |\n|---|---|---|---|---|", flush=True)
    source, failed = None, []
    for name in names:
        found = run(name, options)
        if found is None:
            failed.append(name)
            continue
        source = found["tokens_per_second"] if name == SOURCE else source
        ratio = f"{found['tokens_per_second'] / source:.2f}x" if source else ""
        paper = f"{CONFIGURATIONS[name][2]}x" if name in CONFIGURATIONS else ""
        row = (name, f"{found['tokens_per_second']:,.0f}", f"{found['capacity']:,}", ratio, paper)
        print(f"| {' | '.join(row)} |", flush=True)
    return failed


def run(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """`measure` in a process of its own, which gives the GPU back. None where it failed, after vLLM's own messages."""
    with tempfile.TemporaryDirectory() as folder:
        write_repo(Path(folder), name, options)
        command = [sys.executable, __file__, "--repo", folder, "--engine", json.dumps(options.engine)]
        for key in ("requests", "prompt", "new"):
            command += [f"--{key}", str(getattr(options, key))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "VLLM_PLUGINS": "swaa"})
    if done.returncode:
        print(f"{name}: vLLM stopped with {done.returncode}", file=sys.stderr, flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def write_repo(folder: Path, name: str, options: argparse.Namespace) -> None:
    """config.json is all that dummy weights need."""
    config = {**QWEN3_4B, "num_hidden_layers": options.layers}
    if name != SOURCE:
        full = tuple(layer for layer in CONFIGURATIONS[name][0] if layer < options.layers)
        recipe = Recipe(window=options.window, keep_first=options.keep_first, fa_decode=CONFIGURATIONS[name][1])
        family = next(family for family in families() if family.model_type == "qwen3")
        config = converted_config(config, family, swaa_config(recipe, full, options.layers))
    (folder / "config.json").write_text(dump_json(config), encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All requests at once, after a warm-up with one short prompt."""
    from vllm import LLM, SamplingParams

    defaults = {
        "dtype": "bfloat16",
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "enable_prefix_caching": False,
        "max_model_len": options.prompt + options.new,
        "max_num_batched_tokens": 8192,
        # Graphs for batches that don't occur would only take time.
        "max_num_seqs": options.requests,
    }
    llm = LLM(options.repo, **{**defaults, **options.engine})
    settings = SamplingParams(temperature=0, max_tokens=options.new, ignore_eos=True, detokenize=False)
    seeds = random.Random(0)
    prompts = [[seeds.randrange(1000, 100000) for _ in range(options.prompt)] for _ in range(options.requests)]
    llm.generate([{"prompt_token_ids": prompts[0][:4000]}], settings, use_tqdm=False)
    start = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
    seconds = time.perf_counter() - start
    tokens = sum(len(output.prompt_token_ids) + len(output.outputs[0].token_ids) for output in outputs)
    return {"tokens_per_second": tokens / seconds, "seconds": seconds, "capacity": _capacity(llm)}


def _capacity(llm: Any) -> int:
    """Tokens that the KV cache holds, as vLLM reports it; 0 where this version doesn't say."""
    return int(getattr(llm.llm_engine.vllm_config.cache_config, "kv_cache_size_tokens", None) or 0)


if __name__ == "__main__":
    main()
