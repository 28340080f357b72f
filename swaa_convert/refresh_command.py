"""`swaa-convert refresh-code`."""

from pathlib import Path

import click

from swaa_convert import __version__
from swaa_convert.refresh import Refreshed, refresh_code

_EPILOG = """\
\b
Examples:
  swaa-convert refresh-code ./q3-swaa
  swaa-convert refresh-code me/q3-swaa --out ./q3-swaa
"""


@click.command("refresh-code", epilog=_EPILOG)
@click.argument("repo", metavar="DIR|ID")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Write a refreshed copy there; needed for an ID.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")
@click.option("--force", is_flag=True, help="Replace --out if it is a converted repo.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
def refresh(repo: str, out: Path | None, revision: str | None, force: bool, quiet: bool) -> None:
    """Give a converted repo the embedded code that this version ships.

    Config, weights and every other file stay byte for byte; the manifest is brought up to date. A folder is
    refreshed where it is, in one step, or as a copy at --out.
    """
    result = refresh_code(repo, out, revision=revision, force=force, quiet=quiet)
    if not quiet:
        for line in lines(result):
            click.echo(line)


def lines(result: Refreshed) -> list[str]:
    """What was done, in words."""
    if not result.written:
        return [f"{result.folder} carries the code of swaa-convert {__version__} already: nothing was changed"]
    before = f" (it had {result.before}'s)" if result.before not in (None, __version__) else ""
    changes = result.changes
    kinds = (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed))
    return [
        f"{result.folder} carries the code of swaa-convert {__version__}{before}",
        *(f"  {kind:9}{name}" for kind, names in kinds for name in names),
        *([] if changes else ["  no code file differed"]),
        "Config, weights and all other files are as they were."
        + ("" if result.has_manifest else " There is no swaa_manifest.json to bring up to date."),
    ]
