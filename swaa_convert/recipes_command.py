"""`swaa-convert recipes`: the presets as a table, or one of them in full."""

from typing import Any

import click

from swaa_convert.presets import DEFAULT, NAMES, preset_text, read_preset


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
    click.echo(preset_text(name), nl=False)


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("preset", "window", "sinks", "full layers", "FA decode", "tuned weights", "for"):
        table.add_column(heading)
    for name in NAMES:
        recipe, summary = read_preset(name)
        table.add_row(name, *_row(recipe), summary)
    Console().print(table)
    click.echo(f"\nThe default is {DEFAULT}. `swaa-convert recipes show NAME` prints one with its evidence.")


def _row(recipe: dict[str, Any]) -> list[str]:
    yes = {True: "yes", False: "no"}
    return [
        str(recipe["window"]),
        str(recipe["keep_first"]),
        recipe["interleave"],
        yes[recipe["fa_decode"]],
        yes[recipe.get("tuned", False)],
    ]
