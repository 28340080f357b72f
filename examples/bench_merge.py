"""Times a merging conversion beside a plain copy and beside peft's load, merge and save: `python bench_merge.py`.

Makes a checkpoint of random weights and a LoRA for it (the SWAA paper's: rank 16 on q, k and v; with --all-linear on
every linear layer), and handles it in three ways, each in a process of its own and in turn: copying the files,
`swaa-convert --lora`, and peft with the whole model in memory. Wall time begins with the process and ends when the
data is on the disk; peak memory is what the system says of the process. Needs free space of about three times --size.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HIDDEN, INNER, HEADS, KV_HEADS, HEAD, VOCAB = 4096, 12288, 32, 8, 128, 151936
RANK = 16
SHARD = 1_000_000_000
QKV = {"q_proj": HEADS * HEAD, "k_proj": KV_HEADS * HEAD, "v_proj": KV_HEADS * HEAD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=8, help="GB of the checkpoint, at least 2 (default: 8)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--runs", type=int, default=1, help="rounds; the median counts (default: 1)")
    parser.add_argument("--all-linear", action="store_true", help="adapt every linear layer, not q, k and v alone")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step[0]](*options.step[1:])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(Path(folder), options.size, options.runs, all_linear=options.all_linear)


def compare(folder: Path, size: float, runs: int, *, all_linear: bool) -> None:
    """Make the checkpoint, run the three ways, and print the figures."""
    source, adapter = folder / "source", folder / "adapter"
    run("make", source, adapter, size, "all" if all_linear else "qkv")
    stored = sum(path.stat().st_size for path in source.iterdir())
    print(f"{stored / 1e9:.1f} GB in {len(list(source.glob('*.safetensors')))} shards, {os.cpu_count()} cores")
    # Reads the source once, so that all find it in the same state.
    run("copy", source, folder / "warm")
    rounds = [[once(name, folder) for name in WAYS] for _ in range(runs)]
    found = {name: middle([each[position] for each in rounds]) for position, name in enumerate(WAYS)}
    print(f"{'':14}{'time':>9}{'processor':>11}{'memory':>10}{'time / copy':>13}{'memory / peft':>15}")
    for name, cost in found.items():
        ratios = f"{cost.seconds / found['copy'].seconds:>13.2f}{cost.memory / found['peft'].memory:>15.3f}"
        print(f"{name:14}{cost.seconds:>7.1f} s{cost.processor:>9.1f} s{cost.memory / 1e9:>7.2f} GB{ratios}")


class Cost(NamedTuple):
    """Seconds until the data is on the disk, seconds of all cores together, bytes of peak memory."""

    seconds: float
    processor: float
    memory: float


def once(name: str, folder: Path) -> Cost:
    return run(name, folder / "source", folder / "out", *([] if name == "copy" else [folder / "adapter"]))


def middle(runs: list[Cost]) -> Cost:
    """The median of each."""
    return Cost(*(statistics.median(each) for each in zip(*runs, strict=True)))


def run(step: str, *arguments: object) -> Cost:
    """Run one step in a process of its own."""
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, "--step", step, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    seconds = time.monotonic() - start
    if status:
        sys.exit(f"{step} failed")
    if step != "make":
        shutil.rmtree(str(arguments[1]))
    # Kilobytes on Linux, bytes on macOS.
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, memory)


def make(source: str, adapter: str, size: str, targets: str) -> None:
    """A Qwen3 of about `size` GB in bfloat16, with as many layers as that takes, and a LoRA for it."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import Qwen3Config

    per_layer = sum(width * inner for width, inner in layer_shapes().values())
    depth = max(1, round((float(size) * 1e9 / 2 - 2 * VOCAB * HIDDEN) / per_layer))
    out = Path(source)
    out.mkdir()
    config = Qwen3Config(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        vocab_size=VOCAB,
        architectures=["Qwen3ForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(out)
    names = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "lm_head.weight": (VOCAB, HIDDEN)}
    names["model.norm.weight"] = (HIDDEN,)
    for layer in range(depth):
        names |= {f"model.layers.{layer}.{name}": shape for name, shape in layer_shapes().items()}
        norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
        norms |= {"self_attn.q_norm": HEAD, "self_attn.k_norm": HEAD}
        names |= {f"model.layers.{layer}.{name}.weight": (width,) for name, width in norms.items()}
    write_shards(out, names)
    adapted = {name: shape for name, shape in layer_shapes().items() if targets == "all" or name.split(".")[1] in QKV}
    modules = [name.split(".")[1] for name in adapted]
    LoraConfig(r=RANK, lora_alpha=2 * RANK, use_rslora=True, target_modules=modules).save_pretrained(adapter)
    tensors = {}
    for layer in range(depth):
        for name, (width, inner) in adapted.items():
            prefix = f"base_model.model.model.layers.{layer}.{name.removesuffix('.weight')}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, inner) * 0.01
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(width, RANK) * 0.01
    save_file(tensors, Path(adapter) / "adapter_model.safetensors", metadata={"format": "pt"})


def layer_shapes() -> dict[str, tuple[int, int]]:
    """The large weights of a layer."""
    attention = {f"self_attn.{name}.weight": (width, HIDDEN) for name, width in QKV.items()}
    inner = {f"mlp.{name}.weight": (INNER, HIDDEN) for name in ("gate_proj", "up_proj")}
    return {
        **attention,
        "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
        **inner,
        "mlp.down_proj.weight": (HIDDEN, INNER),
    }


def write_shards(out: Path, names: dict[str, tuple[int, ...]]) -> None:
    """Random weights in files of about `SHARD` bytes, and their index."""
    import torch
    from safetensors.torch import save_file

    groups: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in names.items():
        if sum(torch.Size(each).numel() * 2 for each in groups[-1].values()) > SHARD:
            groups.append({})
        groups[-1][name] = shape
    index = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {name: torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02) for name, shape in group.items()}
        save_file(tensors, out / file, metadata={"format": "pt"})
        index |= dict.fromkeys(group, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (out / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def copy(source: str, out: str) -> None:
    shutil.copytree(source, out)


def convert(source: str, out: str, adapter: str) -> None:
    from swaa_convert.cli import main

    sys.argv = ["swaa-convert", source, "--lora", adapter, "--out", out, "--quiet"]
    main()


def peft(source: str, out: str, adapter: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out, max_shard_size="1GB")


WAYS = ("copy", "swaa-convert", "peft")
STEPS = {"make": make, "copy": copy, "swaa-convert": convert, "peft": peft}

if __name__ == "__main__":
    main()
