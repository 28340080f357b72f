"""Indexes of shards that are damaged, or that lead out of the source."""

import json
from pathlib import Path

import pytest

from tests.malformed.damage import (
    FIRST,
    INDEX,
    SECOND,
    SINGLE,
    Cases,
    after_sharding,
    index,
    index_file,
    index_with,
    refuses,
    without,
)

NORM = "model.norm.weight"
BESIDE = "which is no safetensors file beside it"


def moved_out(source: Path) -> None:
    (source / SECOND).rename(source.parent / "stolen.safetensors")
    (source / SECOND).symlink_to(source.parent / "stolen.safetensors")


def tensors_in_no_shard(source: Path) -> None:
    (source.parent / "dir").mkdir()
    (source / SECOND).unlink()
    (source / SECOND).symlink_to(source.parent / "dir")


CASES: Cases = {
    "no JSON": (index_file(b"{"), "is not valid JSON", "fetch it again"),
    "empty": (index_file(b""), "is not valid JSON"),
    "a list": (index_file(b"[]"), "must hold a JSON object, not a list"),
    "with NaN": (index_file(b'{"metadata": {"total_size": NaN}}'), "NaN is no number"),
    "a key twice": (index_file(b'{"weight_map": {"a": "b", "a": "c"}}'), "the key 'a' stands twice"),
    "not UTF-8": (index_file(b'{"\xff": 1}'), "not UTF-8"),
    "with a byte-order mark": (index_file(b"\xef\xbb\xbf{}"), "save it as UTF-8 without one"),
    "no weight_map": (index_file(b"{}"), "has no weight_map"),
    "weight_map is a list": (index_file(b'{"weight_map": []}'), "has no weight_map"),
    "weight_map is empty": (index_file(b'{"weight_map": {}}'), "has no weight_map"),
    "no metadata": (index_with(metadata=...), f"metadata in {INDEX} must be an object, and there is none"),
    "metadata is null": (index_with(metadata=None), f"metadata in {INDEX} must be an object, and is None"),
    "metadata is a list": (index_with(metadata=[]), f"metadata in {INDEX} must be an object, and is []"),
    "metadata is text": (index_with(metadata="x"), f"metadata in {INDEX} must be an object, and is 'x'"),
    "climbs out": (index(lambda names: names.update({NORM: f"../../{SECOND}"})), BESIDE),
    "climbs out with backslashes": (index(lambda names: names.update({NORM: rf"..\{SECOND}"})), BESIDE),
    "absolute": (index(lambda names: names.update({NORM: "/etc/x.safetensors"})), BESIDE),
    "in a folder": (index(lambda names: names.update({NORM: "deep/x.safetensors"})), BESIDE),
    "no safetensors": (index(lambda names: names.update({NORM: "pytorch_model.bin"})), BESIDE),
    "a number": (index(lambda names: names.update({NORM: 3})), BESIDE),
    "null": (index(lambda names: names.update({NORM: None})), BESIDE),
    "a line break": (
        index(lambda names: names.update({NORM: "a\nb.safetensors"})),
        "a\\nb.safetensors, which is not",
    ),
    "a missing shard": (after_sharding(without(SECOND)), f"names {SECOND}, which is not there (1 of 2 shards missing)"),
    "all shards missing": (
        after_sharding(lambda source: [without(name)(source) for name in (FIRST, SECOND)]),
        "(2 of 2 shards missing)",
    ),
    "a shard that is a link out": (after_sharding(moved_out), f"{SECOND} is a link out of the source folder"),
    "a shard that is a folder": (after_sharding(tensors_in_no_shard), f"{SECOND} is a folder"),
    "a tensor in no shard": (index(lambda names: names.update(ghost=SECOND)), "holds ghost, but no shard does"),
    "a tensor in another shard": (
        index(lambda names: names.update({NORM: SECOND if names[NORM] == FIRST else FIRST})),
        f"says that {FIRST} holds {NORM}, but {SECOND} does",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, source: Path) -> None:
    refuses(source, CASES[case][0], *CASES[case][1:], "safetensors")


def test_shards_without_an_index(source: Path) -> None:
    """All of them say what an index would; some don't."""
    refuses(source, after_sharding(without(INDEX, FIRST)), f"has no {INDEX}, and of 2 shards only 1")


def test_a_single_file_wins_over_an_index(source: Path) -> None:
    """As in transformers; the index names nothing that is read."""
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    refuses(source, lambda source: (source / SINGLE).write_bytes(b""), f"{SINGLE} is damaged")
