"""`swaa-convert convert`, which is also the bare form."""

from pathlib import Path
from typing import Any

import click

from swaa_convert.grouped_help import GroupedCommand, options_of, parsed
from swaa_convert.merge.carried import carried_recipe
from swaa_convert.merge.options import asked_adapters, lora_options
from swaa_convert.recipe_options import recipe_of, recipe_options, recipe_origin
from swaa_convert.sizes import parse_bytes

_source = options_of("Source and output")
_conversion = options_of("Conversion")
_danger = options_of("Dangerous")
_EPILOG = """\
\b
Examples:
  swaa-convert Qwen/Qwen3-8B --window 2048 --interleave odd --out ./q3-swaa
  swaa-convert meta-llama/Llama-3.1-8B-Instruct --recipe quality --cot --out ./llama-swaa
  swaa-convert Qwen/Qwen3-4B --lora ./my-swaa-lora --out ./q3-tuned-swaa
  swaa-convert ./model --full-layers 1,5,9 --no-fa-decode --dry-run --out ./model-swaa
"""


@click.command(cls=GroupedCommand, epilog=_EPILOG)
@click.argument("source")
@_source("--out", "-o", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@_source("--revision", help="The Hub revision; its commit is pinned.")
@recipe_options
@lora_options
@_conversion("--clip-layers", is_flag=True, help="Drop listed layers past the model's depth.")
@_conversion("--link", is_flag=True, help="Hard-link the weights instead of copying them.")
@_conversion("--max-shard-size", metavar="SIZE", callback=parsed(parse_bytes), help="Cut weight files anew: 5GB.")
@_conversion("--dry-run", is_flag=True, help="Say everything, write nothing.")
@_conversion("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@_conversion("--resume", is_flag=True, help="Go on where a killed run was; keep what is done if this one is killed.")
@_danger("--force", is_flag=True, help="Replace --out if it is a converted repo.")
def convert(
    source: str,
    out: Path,
    revision: str | None,
    base: str | None,
    sets: tuple[str, ...],
    lora: tuple[str, ...],
    lora_revision: tuple[str, ...],
    no_lora: bool,
    max_shard_size: int | None,
    clip_layers: bool,
    link: bool,
    dry_run: bool,
    quiet: bool,
    force: bool,
    resume: bool,
    **flags: Any,
) -> None:
    """Convert SOURCE, a local folder or a Hub id, into a sliding-window repo at --out.

    Without options the recipe is the preset `balanced`; options override it. The output appears whole or not
    at all.
    """
    adapters = asked_adapters(lora, lora_revision, base, none=no_lora, quiet=quiet)
    carried = carried_recipe(adapters) if base is None else None
    recipe = recipe_of(base, flags, sets, carried)
    if dry_run or not quiet:
        click.echo(f"Recipe   {recipe_origin(base, flags, sets, carried)}")
    from swaa_convert.convert import convert_checkpoint

    convert_checkpoint(
        source,
        out,
        recipe,
        adapters=adapters,
        revision=revision,
        force=force,
        resume=resume,
        link=link,
        max_shard_size=max_shard_size,
        clip_layers=clip_layers,
        quiet=quiet,
        dry_run=dry_run,
    )
