"""README.md of a converted repo: what it is, how to load it, what it costs, how to make it again."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml

from swaa_convert import __version__
from swaa_convert.chat_template import long_prompt
from swaa_convert.families import transformers_for
from swaa_convert.front_matter import read_front_matter
from swaa_convert.inspect.costs import Cost, cost_at
from swaa_convert.inspect.figures import Rule, kv_dtype
from swaa_convert.inspect.words import rule_in_words, show_memory, show_share
from swaa_convert.layermap import render_layer_map
from swaa_convert.measured import BENCH_FILE, Measured
from swaa_convert.paper import paper_row
from swaa_convert.recipe import Recipe
from swaa_convert.recipe_file import recipe_values
from swaa_convert.resources import TEMPLATES_DIR

LENGTHS = (32 * 1024, 128 * 1024)
_TAGS = ("swaa", "sliding-window-attention", "long-context")
_CARRIED = ("license", "license_name", "license_link", "language")
# Tags that promise a server or a format that this repo does not have.
_DROPPED_TAGS = {"text-generation-inference", "endpoints_compatible", "vllm", "gguf", "mlx", "onnx"}


def render_card(
    *,
    source_id: str,
    source_revision: str | None,
    config: Mapping[str, Any],
    recipe: Recipe,
    source_card: str | None,
    cot_files: Sequence[str] = (),
    adapters: Sequence[tuple[str, str | None]] = (),
    measured: Measured | None = None,
    version: str = __version__,
) -> str:
    """The model card of a converted repo.

    Parameters
    ----------
    source_id:
        A Hub id, or a local folder of which only the name is shown.
    source_revision:
        The commit on the Hub; None for a local folder.
    config:
        The converted config.json.
    recipe:
        What was asked for.
    source_card:
        The source's README.md, if it has one: licence, language and tags are carried over.
    cot_files:
        The files whose chat template `--cot` changed.
    adapters:
        (name, commit on the Hub) of the LoRA adapters that were merged, in order.
    measured:
        What a benchmark of this very repo found.
    version:
        The version of swaa-convert that converted.
    """
    source = source_id if source_revision else os.path.basename(os.path.abspath(source_id))
    rule = Rule.from_config(config["swaa_config"], config["num_hidden_layers"])
    return _template("model_card.md.jinja").render(
        front_matter=_yaml(_front_matter(source, source_revision, source_card)),
        source=source,
        revision=source_revision,
        name=source.split("/")[-1],
        rule=rule,
        sentences=rule_in_words(rule),
        layer_map=render_layer_map(rule.full_layers, rule.depth, rule.fa_decode_layers, unicode=True),
        costs=[_shown(cost_at(rule, config, length), rule) for length in LENGTHS],
        dtype=kv_dtype(config),
        transformers=transformers_for(config.get("model_type")),
        longest=config.get("max_position_embeddings"),
        recipe=_yaml(_given(recipe)),
        long_prompt=long_prompt(recipe.window),
        cot=recipe.cot,
        tuned=recipe.tuned,
        cot_files=cot_files,
        adapters=adapters,
        # The paper's rows are for weights that nobody tuned.
        paper=None if adapters else paper_row(source.split("/")[-1], recipe, rule),
        measured=measured,
        bench_file=BENCH_FILE,
        version=version,
        loading_code=loading_code(),
    )


def loading_code(repo: str | None = None, revision: str | None = None) -> str:
    """Python that loads the repo: in a folder, or on the Hub at a commit or a branch."""
    pinned = revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    return _template("load.py.jinja").render(repo=repo, revision=revision, pinned=pinned)


def _given(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says; no window is said too."""
    values = recipe_values(recipe)
    return {key: value for key, value in values.items() if value is not None or key == "window"}


def _front_matter(source: str, revision: str | None, source_card: str | None) -> dict[str, Any]:
    """Metadata that the Hub understands; `base_model` must be a Hub id, so a local source has none."""
    theirs = read_front_matter((source_card or "").encode("utf-8", errors="replace"))
    carried = {key: theirs[key] for key in _CARRIED if _is_plain(theirs.get(key))}
    base = {"base_model": source, "base_model_relation": "finetune"} if revision else {}
    tags = theirs.get("tags") if _is_plain(theirs.get("tags")) else []
    kept = [tag for tag in ([tags] if isinstance(tags, str) else tags or ()) if _is_kept(tag)]
    return {
        **carried,
        **base,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*dict.fromkeys([*_TAGS, *kept])],
    }


def _is_plain(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_kept(tag: str) -> bool:
    return tag not in _DROPPED_TAGS and not tag.startswith(("base_model:", "license:", "region:"))


def _shown(cost: Cost, rule: Rule) -> dict[str, str]:
    return {
        "length": f"{cost.tokens:,}",
        "seen": f"{min(cost.tokens, rule.span or cost.tokens):,}",
        "prompt": show_share(cost.prompt_share),
        "token": show_share(cost.token_share),
        "memory": show_memory(cost.kv_bytes),
        "source_memory": show_memory(cost.full_kv_bytes),
    }


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _yaml(values: Mapping[str, Any]) -> str:
    """A key per line, lists on one line."""
    return "".join(
        yaml.safe_dump(
            {key: value},
            default_flow_style=None if isinstance(value, list) else False,
            allow_unicode=True,
            width=2**16,
        )
        for key, value in values.items()
    ).rstrip()
