"""`swaa-convert recipes`: the presets as a table, one of them in full, and the reference code's settings as recipes."""

from pathlib import Path

import click

from swaa_convert.errors import SwaaUsageError
from swaa_convert.presets import DEFAULT, NAMES, UnknownRecipe, preset_text, read_preset

_COLUMNS = "{:16}{:>6}  {:>5}  {:11}  {:9}"
_EPILOG = """\
\b
Examples:
  swaa-convert recipes
  swaa-convert recipes show balanced > mine.yaml
  swaa-convert recipes import settings.json --out ./recipes
"""
_SHOW_EPILOG = """\
\b
Examples:
  swaa-convert recipes show balanced
  swaa-convert recipes show quality-lora > mine.yaml
"""
_IMPORT_EPILOG = """\
\b
Examples:
  swaa-convert recipes import settings.json
  swaa-convert recipes import settings.json --entry 3 > mine.yaml
  swaa-convert recipes import sft_settings.json --tuned --out ./recipes
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def recipes(ctx: click.Context) -> None:
    """List the presets that --recipe takes; `recipes show NAME` prints one with its evidence."""
    if ctx.invoked_subcommand is None:
        _print_table()


@recipes.command("list", epilog="\b\nExample:\n  swaa-convert recipes list")
def list_recipes() -> None:
    """List the presets."""
    _print_table()


@recipes.command(epilog=_SHOW_EPILOG, short_help="Print a preset's YAML.")
@click.argument("name")
def show(name: str) -> None:
    """Print a preset's YAML, which is a starting point for a recipe file."""
    try:
        click.echo(preset_text(name), nl=False)
    except UnknownRecipe as error:
        raise SwaaUsageError(error.message) from error


@recipes.command("import", epilog=_IMPORT_EPILOG, short_help="Read settings of the paper's reference code as recipes.")
@click.argument("settings", metavar="SETTINGS.json", type=click.Path(path_type=Path))
@click.option("--out", "-o", metavar="DIR", type=click.Path(path_type=Path), help="Write one recipe per entry there.")
@click.option("--entry", metavar="N", type=click.IntRange(1), help="Only the Nth entry, counted from 1.")
@click.option("--tuned", is_flag=True, help="The settings are for models that were tuned under SWAA.")
def import_settings(settings: Path, out: Path | None, entry: int | None, tuned: bool) -> None:
    """Read a settings list of the SWAA paper's reference code as recipes, and print them or write them to --out.

    Layers stay as they are listed. Published lists run past the depth of the models they are for; converting
    refuses that, and with --clip-layers drops the layers that the model doesn't have.
    """
    from swaa_convert.reference_settings import entry_name, entry_yaml, read_settings

    entries = read_settings(settings, tuned=tuned)
    if entry is not None and entry > len(entries):
        raise SwaaUsageError(f"--entry {entry}: {settings} has {len(entries)} entries")
    chosen = entries if entry is None else [entries[entry - 1]]
    texts = {entry_name(each): entry_yaml(each, settings.name) for each in chosen}
    if out is None:
        click.echo("\n".join(texts.values()), nl=False)
        return
    from swaa_convert.new_folder import write_folder

    write_folder(out, texts)
    click.echo("\n".join(str(out / name) for name in texts))


def _print_table() -> None:
    click.echo(_COLUMNS.format("preset", "window", "sinks", "full layers", "FA decode"))
    for name in NAMES:
        recipe, summary = read_preset(name)
        decode = "yes" if recipe["fa_decode"] else "no"
        row = _COLUMNS.format(name, recipe["window"], recipe["keep_first"], recipe["interleave"], decode)
        click.echo(f"{row.rstrip()}\n    {summary}")
    click.echo(f"\nThe default is {DEFAULT}. `swaa-convert recipes show NAME` prints one with its evidence.")
