"""What the merge leaves alone is copied, and what it changes keeps its place, name, dtype and metadata."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swaa_convert.convert import convert_checkpoint
from swaa_convert.merge.adapter import open_adapters
from swaa_convert.recipe import Recipe
from swaa_convert.shards import pool
from tests.merge.conftest import Make
from tests.support.adapters import EXPERTS, FUSES, assert_same_bits, copied, make_adapter, stored
from tests.support.command import run, tree
from tests.support.sources import make_source, write_json

INDEX = "model.safetensors.index.json"


def header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(struct.unpack("<Q", file.read(8))[0])


def merged(source: Path, adapter: Path, out: Path, **options: Any) -> Path:
    given = open_adapters([str(adapter)])
    return convert_checkpoint(source, out, Recipe(window=8, keep_first=2), adapters=given, check=False, **options)


@pytest.fixture
def first_layer(source_of: Make, adapter_of: Make) -> tuple[Path, Path]:
    """A source in three shards, and an adapter that touches the first only."""
    source = source_of()
    return source, adapter_of(source, "first", layers_to_transform=[0])


def test_untouched_shards_are_the_sources(first_layer: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = first_layer
    before = tree(source)
    repo = merged(source, adapter, tmp_path / "out")
    same = [path.name for path in sorted(repo.glob("model-*")) if path.read_bytes() == before[path.name]]
    assert same == ["model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"]
    assert (repo / INDEX).read_bytes() == before[INDEX] and tree(source) == before


def test_untouched_shards_are_linked(first_layer: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = first_layer
    repo = merged(source, adapter, tmp_path / "out", link=True)
    linked = [(repo / path.name).samefile(path) for path in sorted(source.glob("model-*"))]
    assert linked == [False, True, True]


def test_only_what_the_adapter_names_changes(first_layer: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = first_layer
    before, after = stored(source), stored(merged(source, adapter, tmp_path / "out"))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == [f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")]


def test_touched_shards_keep_order_and_metadata(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = copied(source_of(), tmp_path / "source")
    path = source / "model-00002-of-00003.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "made by": "é"})
    repo = merged(source, adapter_of(source_of()), tmp_path / "out")
    assert (repo / path.name).read_bytes() != path.read_bytes()
    assert [header(repo / each.name) for each in source.glob("model-*")] == [
        header(each) for each in source.glob("model-*")
    ]


def test_mixed_dtypes_stay(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=torch.bfloat16)
    weights = load_file(source / "model.safetensors")
    kept = {name: tensor.float() for name, tensor in weights.items() if "norm" in name or "layers.1." in name}
    save_file({**weights, **kept}, source / "model.safetensors")
    repo = merged(source, adapter_of(source_of()), tmp_path / "out")
    assert {n: t.dtype for n, t in stored(repo).items()} == {n: t.dtype for n, t in stored(source).items()}


def test_eight_bits_that_are_not_touched(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=torch.bfloat16)
    weights = load_file(source / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    save_file({**weights, name: weights[name].to(torch.float8_e4m3fn)}, source / "model.safetensors")
    repo = merged(source, adapter_of(source_of()), tmp_path / "out")
    assert torch.equal(stored(repo)[name].view(torch.uint8), stored(source)[name].view(torch.uint8))


def test_a_missing_index_is_written(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = copied(source_of(), tmp_path / "source")
    index = json.loads((source / INDEX).read_text())
    (source / INDEX).unlink()
    repo = merged(source, adapter_of(source_of()), tmp_path / "out")
    assert json.loads((repo / INDEX).read_text()) == index


@pytest.mark.skipif(not FUSES, reason="before version 5, transformers fuses no experts")
def test_fused_experts_on_disk(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    adapter = adapter_of(source_of("qwen3_moe"), "experts", **EXPERTS["experts"])
    separate = make_source(tmp_path / "separate", "qwen3_moe", dtype=torch.bfloat16)
    fused = _fuse(copied(separate, tmp_path / "fused"))
    ours = [merged(each, adapter, tmp_path / f"out-{each.name}") for each in (separate, fused)]
    assert_same_bits(stored(_fuse(ours[0])), stored(ours[1]))


def _fuse(folder: Path) -> Path:
    """Store the experts as version 5 has them in memory."""
    weights = load_file(folder / "model.safetensors")
    for layer in range(4):
        prefix = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([weights.pop(f"{prefix}.{expert}.{name}_proj.weight") for expert in range(4)])
            for name in ("gate", "up", "down")
        )
        weights |= {f"{prefix}.gate_up_proj": torch.cat([gate, up], 1), f"{prefix}.down_proj": down}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize(("limit", "files"), [(300_000, 2), (10**9, 1), (1, 38)])
def test_cut_anew(
    limit: int, files: int, with_adapter: bool, source_of: Make, adapter_of: Make, tmp_path: Path
) -> None:
    source = source_of()
    given = open_adapters([str(adapter_of(source))] if with_adapter else [])
    whole = convert_checkpoint(source, tmp_path / "whole", Recipe(), adapters=given)
    cut = convert_checkpoint(source, tmp_path / "cut", Recipe(), adapters=given, max_shard_size=limit)
    assert_same_bits(stored(cut), stored(whole))
    assert len(list(cut.glob("*.safetensors"))) >= files
    assert (cut / INDEX).exists() == (files > 1)
    for path in cut.glob("model-*"):
        assert path.stat().st_size - len(header(path)) - 8 <= limit or len(safe_open(path, "pt").keys()) == 1


def test_the_size_is_given_as_people_write_it(source_of: Make, tmp_path: Path) -> None:
    result = run(source_of(), "--out", tmp_path / "out", "--max-shard-size", "300kB")
    assert "Wrote " in result.stderr and "of 2 files" in result.stderr
    assert json.loads((tmp_path / "out" / INDEX).read_text())["metadata"]["total_size"] > 300_000


def test_a_new_weight_is_counted(source_of: Make, tmp_path: Path) -> None:
    source = source_of(tied=True)
    adapter = make_adapter(source, tmp_path / "adapter", modules_to_save=["lm_head"])
    repo = merged(source, adapter, tmp_path / "out")
    index = json.loads((repo / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored(repo).values())
    assert index["weight_map"]["lm_head.weight"] == index["weight_map"]["model.embed_tokens.weight"]


def test_pieces_of_a_module_in_different_files(source_of: Make, tmp_path: Path) -> None:
    source = copied(source_of("qwen2"), tmp_path / "source")
    weights, names = stored(source), sorted(stored(source))
    for path in source.glob("model*"):
        path.unlink()
    files = {name: f"model-0000{1 + position % 2}-of-00002.safetensors" for position, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, source / file)
    write_json(source / INDEX, {"metadata": {}, "weight_map": files})
    adapter = make_adapter(source_of("qwen2"), tmp_path / "adapter", target_modules="all-linear", bias="all")
    scattered = merged(source, adapter, tmp_path / "scattered")
    assert_same_bits(stored(scattered), stored(merged(source_of("qwen2"), adapter, tmp_path / "whole")))


def test_one_file_at_a_time_gives_the_same(
    source_of: Make, adapter_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, adapter = source_of(), adapter_of(source_of())
    together = merged(source, adapter, tmp_path / "together")
    monkeypatch.setattr(pool, "_WORKERS", 1)
    assert tree(together) == tree(merged(source, adapter, tmp_path / "alone"))
