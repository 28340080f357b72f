"""`swaa-convert inspect`."""

import json
from pathlib import Path

import click

from swaa_convert.grouped_help import GroupedCommand, options_of
from swaa_convert.inspect.costs import cost_at
from swaa_convert.inspect.repo import read_repo
from swaa_convert.inspect.report import json_report, text_report
from swaa_convert.sizes import parse_size

_what = options_of("What is shown")
_output = options_of("Output")
_EPILOG = """\
\b
Examples:
  swaa-convert inspect ./q3-swaa
  swaa-convert inspect me/q3-swaa --revision main --lengths 16k,1m
  swaa-convert inspect ./q3-swaa --png q3-swaa.png
"""


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Lengths in tokens, such as 8k,32k,128k."""
    try:
        lengths = tuple(parse_size(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if min(lengths) < 1:
        raise click.BadParameter("a length must be 1 token or more")
    return lengths


@click.command(cls=GroupedCommand, epilog=_EPILOG)
@click.argument("repo", metavar="DIR|ID")
@_what("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")
@_output("--json", "as_json", is_flag=True, help="Print one JSON document for programs.")
@_output(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the mask and the layer map to a file.",
)
@_what(
    "--lengths",
    callback=_lengths,
    metavar="LENGTHS",
    default="8k,32k,128k",
    show_default=True,
    help="Prompt lengths to count attention work and KV memory at.",
)
def inspect(repo: str, revision: str | None, as_json: bool, png: Path | None, lengths: tuple[int, ...]) -> None:
    """Show what a converted repo does: layers, rule, attention work and KV memory.

    DIR|ID is a folder or a model on the Hub; of the latter only config.json, the recipe and the manifest are fetched.
    """
    found = read_repo(repo, revision)
    costs = [cost_at(found.rule, found.config, length) for length in lengths]
    if png is not None:
        # Imported here: drawing takes a second to load, and the figures don't need it.
        from swaa_convert.inspect.picture import draw

        draw(found, png)
    click.echo(json.dumps(json_report(found, costs), indent=2) if as_json else text_report(found, costs))
    if png is not None:
        click.echo(f"Picture: {png}", err=True)
