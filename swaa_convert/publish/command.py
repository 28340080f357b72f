"""`swaa-convert push-to-hub`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from swaa_convert.errors import SwaaError, one_line
from swaa_convert.grouped_help import GroupedCommand, options_of
from swaa_convert.publish.pinned import snippet
from swaa_convert.publish.push import Prepared, Pushed, prepare, push
from swaa_convert.publish.wanted import MAIN, Wanted
from swaa_convert.sizes import show_bytes
from swaa_convert.verify.command import reading

_where = options_of("Where")
_run = options_of("Run")
_EPILOG = """\
\b
Examples:
  swaa-convert push-to-hub ./q3-swaa me/q3-swaa --private
  swaa-convert push-to-hub ./q3-swaa me/q3-swaa --revision 2k --tag v1
  swaa-convert push-to-hub ./q3-swaa their/q3-swaa --create-pr --dry-run

The token is the one of `hf auth login` or of HF_TOKEN.
"""


@click.command("push-to-hub", cls=GroupedCommand, epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repo_id", metavar="REPO_ID")
@_where("--private", is_flag=True, help="The repo is private; one that exists and is public is refused.")
@_where("--revision", "branch", metavar="BRANCH", help="Push to this branch, which is made from main if need be.")
@_where("--create-pr", is_flag=True, help="Open a pull request instead of pushing.")
@_where("--message", metavar="TEXT", help="The commit's message.")
@_where("--tag", metavar="NAME", help="Tag what was pushed.")
@_run("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@_run("--quiet", "-q", is_flag=True, help="Say nothing but errors and the loading code.")
def push_to_hub(folder: Path, repo_id: str, dry_run: bool, quiet: bool, **where: Any) -> None:
    """Push the converted repo in DIR to REPO_ID on the Hub, and print how to load it, pinned to its commit.

    Every file is first compared with the manifest. Weights go up a few files at a time, and what was sent is not
    sent again after a break; then one commit holds everything, and a second one pins the card to it. Files in the
    repo that no push wrote stay as they are.
    """
    run(folder, Wanted(repo_id, **where), dry_run=dry_run, quiet=quiet)


def run(folder: Path, wanted: Wanted, *, dry_run: bool = False, quiet: bool = False) -> None:
    """Push and say so; `convert --push` ends with this too."""
    with reading(_size(folder)) as advance:
        prepared = prepare(folder, wanted, advance)
    if dry_run or not quiet:
        for line in plan_lines(prepared):
            click.echo(one_line(line))
    if dry_run:
        click.echo("Dry run: nothing was pushed.")
        return
    for line in done_lines(push(prepared, quiet=quiet), wanted, quiet=quiet):
        click.echo(line)


def push_converted(folder: Path, wanted: Wanted, *, quiet: bool) -> None:
    """The end of `convert --push`: if it fails, the conversion stands."""
    try:
        run(folder, wanted, quiet=quiet)
    except SwaaError as error:
        raise SwaaError(f"{error.message} ({folder} is converted: `swaa-convert push-to-hub` pushes it)") from error


def plan_lines(prepared: Prepared) -> Iterator[str]:
    """What will be done."""
    wanted, local, remote, delta = prepared.wanted, prepared.local, prepared.remote, prepared.delta
    yield f"Push     {local.folder}, verified: {len(local.manifest.files)} files as in its manifest"
    if local.older_code:
        yield (
            f"Note     it carries the code of swaa-convert {local.older_code}: "
            f"`swaa-convert refresh-code {local.folder}` brings it up to date"
        )
    yield f"To       {remote.repo_id}, {_state(prepared)}"
    if delta.send:
        size = sum(local.manifest.files[name].size for name in delta.send)
        yield f"Send     {', '.join(delta.send)} ({show_bytes(size)})"
    if delta.remove:
        yield f"Remove   {', '.join(delta.remove)} (left over from an earlier push)"
    if delta.their_card is not None:
        yield "Keep     README.md: it was written or changed on the Hub; remove it there to have this repo's card"
    if delta.pin is None and not delta.changes:
        yield "Send     swaa_manifest.json" + ("" if delta.their_card is not None else ", README.md")
    if wanted.tag and wanted.tag not in remote.tags:
        yield f"Tag      {wanted.tag}"


def done_lines(pushed: Pushed, wanted: Wanted, *, quiet: bool) -> Iterator[str]:
    """What was done, and how to load it."""
    from huggingface_hub.constants import ENDPOINT

    if not quiet and not pushed.done:
        yield f"Nothing has changed: all of it is on the Hub already, at {pushed.head}"
    elif not quiet:
        yield f"Done     {pushed.pull_request or f'{ENDPOINT}/{pushed.repo_id}/tree/{pushed.head}'}"
    if not quiet:
        yield "Load it with"
    yield f"  {snippet(pushed.repo_id, pushed.pin)}"


def _state(prepared: Prepared) -> str:
    wanted, remote = prepared.wanted, prepared.remote
    if remote.head is None:
        return f"new{', private' if wanted.private else ''}{_branch(wanted.on)}"
    exists = "private" if remote.private else "public"
    if wanted.create_pr:
        return f"{exists}, as a pull request{_branch(wanted.on)}"
    return f"{exists}{_branch(wanted.on)}{'' if remote.has_branch else ' (new)'}"


def _branch(name: str) -> str:
    return "" if name == MAIN else f", branch {name}"


def _size(folder: Path) -> int:
    """Bytes to read, as far as they can be told before the folder is looked at."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file()) if folder.is_dir() else 0
