"""`swaa-convert card`: the model card anew, with what was measured."""

from pathlib import Path

import click

from swaa_convert.rewrite_card import rewrite_card

_EPILOG = """\
\b
Examples:
  swaa-convert bench ./q3-swaa --json bench.json
  swaa-convert card ./q3-swaa --bench bench.json
"""


@click.command(epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--bench",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What `bench --json` measured on this repo: kept in it as swaa_bench.json, and quoted.",
)
def card(folder: Path, bench: Path | None) -> None:
    """Write the model card of the converted repo in DIR anew, and bring the manifest up to date.

    Everything in it comes from the repo itself. A card that was changed by hand is not overwritten: move it away
    first.
    """
    changed = rewrite_card(folder, bench)
    click.echo(f"{folder}: {', '.join(changed)} written" if changed else f"{folder}: the card is up to date already")
