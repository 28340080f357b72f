"""`swaa-convert convert`, which is also the bare form."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swaa_convert.errors import SwaaUsageError
from swaa_convert.grouped_help import GroupedCommand, options_of, parsed
from swaa_convert.merge.carried import carried_recipe
from swaa_convert.merge.options import asked_adapters, lora_options
from swaa_convert.recipe_options import recipe_of, recipe_options, recipe_origin
from swaa_convert.sizes import parse_bytes

if TYPE_CHECKING:
    from swaa_convert.publish.wanted import Wanted

_source = options_of("Source and output")
_conversion = options_of("Conversion")
_publish = options_of("Publish")
_danger = options_of("Dangerous")
_EPILOG = """\
\b
Examples:
  swaa-convert Qwen/Qwen3-8B --window 2048 --interleave odd --out ./q3-swaa
  swaa-convert meta-llama/Llama-3.1-8B-Instruct --recipe quality --cot --out ./llama-swaa
  swaa-convert Qwen/Qwen3-4B --lora ./my-swaa-lora --out ./q3-tuned-swaa
  swaa-convert Qwen/Qwen3-8B --out ./q3-swaa --push me/q3-swaa --private
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
@_publish("--push", metavar="REPO_ID", help="Then push the result to this repo on the Hub (push-to-hub).")
@_publish("--private", is_flag=True, help="That repo is private.")
@_publish("--push-revision", "branch", metavar="BRANCH", help="Push to this branch.")
@_publish("--create-pr", is_flag=True, help="Open a pull request instead of pushing.")
@_publish("--message", metavar="TEXT", help="The commit's message.")
@_publish("--tag", metavar="NAME", help="Tag what was pushed.")
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
    push: str | None,
    private: bool,
    branch: str | None,
    create_pr: bool,
    message: str | None,
    tag: str | None,
    **flags: Any,
) -> None:
    """Convert SOURCE, a local folder or a Hub id, into a sliding-window repo at --out.

    Without options the recipe is the preset `balanced`; options override it. The output appears whole or not
    at all.
    """
    where = {"private": private, "branch": branch, "create_pr": create_pr, "message": message, "tag": tag}
    wanted = _wanted(push, where)
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
    if wanted is not None and dry_run:
        click.echo(f"The result would then be pushed to {wanted.repo_id}.")
    elif wanted is not None:
        from swaa_convert.publish.command import push_converted

        push_converted(out, wanted, quiet=quiet)


def _wanted(repo_id: str | None, where: dict[str, Any]) -> "Wanted | None":
    """What is to be pushed where; refused before the conversion if the Hub will not take it."""
    given = [name for name, value in where.items() if value]
    if repo_id is None:
        if given:
            option = "push-revision" if given[0] == "branch" else given[0].replace("_", "-")
            raise SwaaUsageError(f"--{option} says how to push: add --push REPO_ID")
        return None
    from swaa_convert.publish.push import open_remote
    from swaa_convert.publish.wanted import Wanted

    wanted = Wanted(repo_id, **where)
    open_remote(wanted)
    return wanted
