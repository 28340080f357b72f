"""What pages take to be there: models on a Hub, and what a page's own `world` marks name."""

import os
import stat
import sys
from pathlib import Path

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.docs.checks import ROOT
from tests.support.adapters import make_adapter
from tests.support.fake_hub import TOKEN, FakeHub
from tests.support.sources import make_source

# Enough layers for lists such as 1,5,9; bitsandbytes packs 64 weights of a row together.
SHAPE = {"num_hidden_layers": 12, "intermediate_size": 128}
MODELS = {
    "Qwen/Qwen3-8B": "qwen3",
    "Qwen/Qwen3-4B": "qwen3",
    "Qwen/Qwen3-4B-Thinking-2507": "qwen3",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "qwen3_moe",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
}
# Programs of this environment, under the names that pages use.
_SHIMS = {
    "swaa-convert": "-c 'import sys; sys.argv[0] = \"swaa-convert\"; from swaa_convert.cli import main; main()'",
    "python": "",
    "torchrun": "-m torch.distributed.run",
    "hf": "-c 'from huggingface_hub.cli.hf import main; main()'",
    "lm_eval": "-m lm_eval",
}


def make_models(folder: Path) -> dict[str, Path]:
    """Tiny models under the names of large ones."""
    made = {kind: make_source(folder / kind, kind, **SHAPE) for kind in set(MODELS.values())}
    return {name: made[kind] for name, kind in MODELS.items()}


def furnish(folder: Path, names: list[str], hub: FakeHub) -> None:
    """Put what a page names into its folder, or onto the Hub."""
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "modeling").symlink_to(ROOT / "modeling")
    qwen3, llama = hub.models["Qwen/Qwen3-8B"], hub.models["meta-llama/Llama-3.1-8B-Instruct"]
    assert isinstance(qwen3, Path) and isinstance(llama, Path)
    for name in names:
        if name == "./q3-swaa":
            convert_checkpoint(qwen3, folder / "q3-swaa", Recipe(), check=False, quiet=True)
        elif name == "me/q3-swaa":
            out = folder.parent / "pushed"
            hub.models[name] = convert_checkpoint(qwen3, out, Recipe(), check=False, quiet=True)
        elif name == "./my-swaa-lora":
            make_adapter(qwen3, folder / "my-swaa-lora")
        elif name == "./my-llama":
            (folder / "my-llama").symlink_to(llama)
        else:
            raise ValueError(f"no {name} in tests/docs/world.py")


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    """For the worker: the Hub, logged in, and the programs."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    for name, how in _SHIMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {how} "$@"\n')
        (programs / name).chmod(stat.S_IRWXU)
    env = hub.environment(home, token=TOKEN)
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return env | quiet | path | {"HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
