"""`swaa-convert recipes`: the presets as a table, or one of them in full."""

import click

from swaa_convert.errors import SwaaUsageError
from swaa_convert.presets import DEFAULT, NAMES, UnknownRecipe, preset_text, read_preset

_COLUMNS = "{:16}{:>6}  {:>5}  {:11}  {:9}"


@click.group(invoke_without_command=True)
@click.pass_context
def recipes(ctx: click.Context) -> None:
    """List the presets that --recipe takes; `recipes show NAME` prints one with its evidence."""
    if ctx.invoked_subcommand is None:
        _print_table()


@recipes.command("list")
def list_recipes() -> None:
    """List the presets."""
    _print_table()


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a preset's YAML, which is a starting point for a recipe file."""
    try:
        click.echo(preset_text(name), nl=False)
    except UnknownRecipe as error:
        raise SwaaUsageError(error.message) from error


def _print_table() -> None:
    click.echo(_COLUMNS.format("preset", "window", "sinks", "full layers", "FA decode"))
    for name in NAMES:
        recipe, summary = read_preset(name)
        decode = "yes" if recipe["fa_decode"] else "no"
        row = _COLUMNS.format(name, recipe["window"], recipe["keep_first"], recipe["interleave"], decode)
        click.echo(f"{row.rstrip()}\n    {summary}")
    click.echo(f"\nThe default is {DEFAULT}. `swaa-convert recipes show NAME` prints one with its evidence.")
