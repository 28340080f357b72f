"""Ways to spoil an adapter's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.sources import write_json

Change = Callable[[Path], object]
WEIGHTS = "adapter_model.safetensors"
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def setting(**values: Any) -> Change:
    """Change keys of adapter_config.json; `...` removes one."""

    def change(adapter: Path) -> None:
        old = json.loads((adapter / "adapter_config.json").read_text())
        write_json(adapter / "adapter_config.json", {k: v for k, v in {**old, **values}.items() if v is not ...})

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Change the adapter's tensors."""

    def rewrite(adapter: Path) -> None:
        found = load_file(adapter / WEIGHTS)
        change(found)
        save_file(found, adapter / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def without(name: str) -> Change:
    return lambda adapter: (adapter / name).unlink()


def written(name: str, data: bytes) -> Change:
    return lambda adapter: (adapter / name).write_bytes(data)


def pickled(adapter: Path) -> None:
    """Weights that would run code when they are loaded."""
    (adapter / WEIGHTS).unlink()
    torch.save({"evil": Path}, adapter / "adapter_model.bin")


def cast(dtype: torch.dtype) -> Change:
    return tensors(lambda found: found.update({KEY: found[KEY].to(dtype)}))


def packed(dtype: str, size: int) -> Change:
    """Weights in a dtype that torch has no tensors of, or none that can be computed with."""
    header = json.dumps({"x": {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}}).encode()
    return written(WEIGHTS, len(header).to_bytes(8, "little") + header + bytes(size))


def as_bin(dtype: torch.dtype) -> Change:
    def change(adapter: Path) -> None:
        torch.save({KEY: load_file(adapter / WEIGHTS)[KEY].to(dtype)}, adapter / "adapter_model.bin")
        (adapter / WEIGHTS).unlink()

    return change


def damaged_bin(damage: Callable[[bytes], bytes]) -> Change:
    """A pickle whose bytes are others."""

    def change(adapter: Path) -> None:
        torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
        written("adapter_model.bin", damage((adapter / "adapter_model.bin").read_bytes()))(adapter)
        (adapter / WEIGHTS).unlink()

    return change


def odd_bin(make: Callable[[torch.Tensor], torch.Tensor], *, listed: bool = False) -> Change:
    """A pickle with a tensor of another kind, or with a list of tensors."""

    def change(adapter: Path) -> None:
        found = {name: make(tensor) if name == KEY else tensor for name, tensor in load_file(adapter / WEIGHTS).items()}
        torch.save(list(found.values()) if listed else found, adapter / "adapter_model.bin")
        (adapter / WEIGHTS).unlink()

    return change


def pointer(name: str) -> Change:
    def change(adapter: Path) -> None:
        (adapter / WEIGHTS).unlink()
        (adapter / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n")

    return change


def replaced(make: Callable[[Path], object], name: str = WEIGHTS) -> Change:
    """Something else where the file was."""

    def change(adapter: Path) -> None:
        (adapter / name).unlink()
        make(adapter / name)

    return change


def moved_out(adapter: Path) -> None:
    """Weights elsewhere, and a link to them."""
    elsewhere = adapter.parent / "elsewhere"
    (adapter / WEIGHTS).rename(elsewhere)
    (adapter / WEIGHTS).symlink_to(elsewhere)


def trained_on(name: object, library: object = "transformers.models.some.modeling_some") -> Change:
    return setting(task_type=None, auto_mapping={"base_model_class": name, "parent_library": library})
