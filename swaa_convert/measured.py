"""swaa_bench.json: what `swaa-convert bench` measured of a converted repo, kept in the repo and quoted by its card.

It is the document of `bench --json` without the command, which may hold paths, and it belongs to one repo only: the
bench writes down which weights and which config it measured.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swaa_convert.bench.stats import Spread
from swaa_convert.bench.variants import FULL
from swaa_convert.errors import SwaaError
from swaa_convert.inspect.words import show_memory
from swaa_convert.manifest import Manifest
from swaa_convert.strict_json import parse_json

BENCH_FILE = "swaa_bench.json"
_FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """Measurements as a card shows them.

    Parameters
    ----------
    ran_on:
        Device and versions.
    run:
        Batch, tokens, repeats, dtype and backend.
    rows:
        For each prompt length: tokens, and for first token, later token and KV memory full attention's and ours.
    """

    ran_on: str
    run: str
    rows: list[list[str]]


def identity(manifest: Manifest) -> str:
    """A hash of what a converted repo computes with: its weights and its config."""
    entries = manifest.files.items()
    held = sorted((name, one.sha256) for name, one in entries if name == "config.json" or name.endswith(".safetensors"))
    return hashlib.sha256("".join(f"{sha256} {name}\n" for name, sha256 in held).encode()).hexdigest()


def kept(data: bytes, where: str) -> bytes:
    """A document of `bench --json` as a repo keeps it."""
    document = _parsed(data, where)
    document.pop("command", None)
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_measured(data: bytes, where: str, manifest: Manifest, swaa: Mapping[str, Any]) -> Measured:
    """The measurements of the repo with this manifest and `swaa_config`; those of any other are refused."""
    document = _parsed(data, where)
    try:
        _check(document, where, manifest)
        return _measured(document, where, swaa)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise SwaaError(f"{where} is no document of `swaa-convert bench --json` ({error!r}): measure again") from error


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = parse_json(data)
    except ValueError as error:
        raise SwaaError(f"{where} is not valid JSON ({error}): write it with `swaa-convert bench --json`") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise SwaaError(f"{where} is no document of `swaa-convert bench --json`: measure again")
    return document


def _check(document: Mapping[str, Any], where: str, manifest: Manifest) -> None:
    model = document["model"]
    if model.get("converted") != identity(manifest):
        raise SwaaError(
            f"{where} was measured on other weights or another recipe: run `swaa-convert bench` on this repo"
        )
    if document["settings"]["random_weights"] or model["layers"] != model["layers_on_disk"]:
        raise SwaaError(f"{where} was measured with --random-weights or --layers, so not on this repo: measure again")
    if any(one["name"] == FULL and one["note"] for one in document["variants"]):
        raise SwaaError(f"{where} was measured beside another model (--baseline): measure again without")


def _measured(document: Mapping[str, Any], where: str, swaa: Mapping[str, Any]) -> Measured:
    ours = [one["name"] for one in document["variants"] if one["swaa_config"] == swaa]
    if not ours:
        raise SwaaError(f"{where} does not measure this repo's recipe: run `swaa-convert bench` with --recipes own")
    # Where memory ran out, the figures are of fewer runs than the card would say.
    finished = [one for one in document["results"] if not one.get("out_of_memory")]
    cells = {(one["variant"], one["length"]): one["figures"] for one in finished}
    lengths = sorted({length for _, length in cells})
    pairs = [(length, cells.get((FULL, length)), cells.get((ours[0], length))) for length in lengths]
    rows = [_row(length, full, own) for length, full, own in pairs if full and own]
    if not rows:
        raise SwaaError(f"{where} holds no length at which both full attention and this repo were measured")
    return Measured(_machine(document["machine"]), _run(document["settings"]), rows)


def _row(length: int, full: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    # Imported here: what draws tables in a terminal is not needed to read a repo.
    from swaa_convert.bench.report import show_speed_up, show_time

    found = [f"{length:,}"]
    for key in ("first", "token"):
        theirs, mine = _spread(full[key]), _spread(own[key])
        found += [show_time(theirs), show_time(mine), show_speed_up(mine, theirs)]
    return [*found, show_memory(full["kv_bytes"]), show_memory(own["kv_bytes"])]


def _spread(values: Mapping[str, float] | None) -> Spread | None:
    return None if values is None else Spread(**{key: float(value) for key, value in values.items()})


def _machine(machine: Mapping[str, Any]) -> str:
    names = ("torch", "transformers", "flash-attn-4", "swaa-convert")
    cuda = [f"CUDA {machine['cuda']}"] if machine["cuda"] else [f"{machine['threads']} threads"]
    return _plain(
        ", ".join([machine["device"], *cuda, *(f"{name} {machine[name]}" for name in names if machine[name])])
    )


def _run(settings: Mapping[str, Any]) -> str:
    return _plain(
        f"{settings['repeats']} runs of {settings['new_tokens']} new tokens, batch {settings['batch']}, "
        f"{settings['dtype']}, backend {settings['backend']}, {settings.get('cache', 'dynamic')} cache"
    )


def _plain(text: str) -> str:
    """Text from a file as it can stand in a table or a line of Markdown."""
    return "".join(char for char in text if char.isprintable() and char not in "|`<>[]")
