"""A converted repo as text for a person and as JSON for a program."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from swaa_convert.inspect.costs import Cost
from swaa_convert.inspect.figures import kv_bytes_per_key, kv_dtype
from swaa_convert.inspect.repo import ConvertedRepo
from swaa_convert.inspect.words import rule_in_words, show_memory, show_share, show_tokens
from swaa_convert.layermap import render_layer_map

FORMAT = 1
_WIDTH = 78
_ROW = "  {:>8}    {:>20}    {:>22}".format
_CELLS = "  {:>8}    {:>8}  {:>10}    {:>10}  {:>10}".format
_COLUMNS = ("tokens", "prompt", "next token", "this", "source")


def text_report(repo: ConvertedRepo, costs: Sequence[Cost]) -> str:
    """The whole report, within 80 columns."""
    rule = repo.rule
    sections = [
        _origin(repo),
        [render_layer_map(rule.full_layers, rule.depth, rule.fa_decode_layers)],
        [line for sentence in rule_in_words(rule) for line in _item(sentence)],
        _table(costs, kv_dtype(repo.config)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections)


def json_report(repo: ConvertedRepo, costs: Sequence[Cost]) -> dict[str, Any]:
    """One document with stable keys; what is not known is null.

    format:
        Of this document; it changes when a key goes away or changes its meaning.
    repo, source:
        Where the repo is and what it was made from.
    layers:
        How many there are, and the numbers of those that are full, windowed, and windowed with FA decode.
    rule:
        config.json's own `swaa_config`.
    recipe:
        What was asked for, from swaa_recipe.yaml.
    costs:
        One entry per length, with the fields of `Cost` and its three shares of the source's.
    """
    rule, config = repo.rule, repo.config
    return {
        "format": FORMAT,
        "repo": {
            "name": repo.name,
            "revision": repo.revision,
            "model_type": config.get("model_type"),
            "architecture": _architecture(repo),
            "code_version": repo.code_version,
        },
        "source": {"name": repo.source, "revision": repo.source_revision},
        "layers": {
            "count": rule.depth,
            "full": list(rule.full_layers),
            "windowed": list(rule.windowed_layers),
            "fa_decode": list(rule.fa_decode_layers),
        },
        "rule": dict(config["swaa_config"]),
        "recipe": dict(repo.recipe) or None,
        "kv": {"dtype": kv_dtype(config), "bytes_per_token_and_layer": kv_bytes_per_key(config)},
        "costs": [_cost_document(cost) for cost in costs],
    }


def _cost_document(cost: Cost) -> dict[str, float]:
    shares = {name: getattr(cost, name) for name in ("prompt_share", "token_share", "kv_share")}
    return asdict(cost) | shares


def _origin(repo: ConvertedRepo) -> list[str]:
    made_by = f"swaa-convert {repo.code_version}" if repo.code_version else "not recorded"
    lines = [
        f"Repo     {repo.name}{_at(repo.revision)}",
        f"         {_architecture(repo) or repo.config.get('model_type')}, {repo.rule.depth} layers",
        f"Source   {repo.source or 'not recorded (no swaa_recipe.yaml)'}{_at(repo.source_revision)}",
        f"Code     {made_by}",
    ]
    return lines + (["Template asks for reasoning before the answer (cot)"] if repo.recipe.get("cot") else [])


def _at(revision: str | None) -> str:
    return f" at {revision}" if revision else ""


def _architecture(repo: ConvertedRepo) -> str | None:
    names = repo.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None


def _item(sentence: str) -> Iterator[str]:
    yield from textwrap.wrap(sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _table(costs: Sequence[Cost], dtype: str) -> list[str]:
    lines = [_ROW("", "attention work", f"KV cache, {dtype}"), _CELLS(*_COLUMNS)]
    for cost in costs:
        shares = show_share(cost.prompt_share), show_share(cost.token_share)
        memory = show_memory(cost.kv_bytes), show_memory(cost.full_kv_bytes)
        lines.append(_CELLS(show_tokens(cost.tokens), *shares, *memory))
    return [*lines, "", "  Counted, not timed. Attention work is query-key pairs; the source's is 100%."]
