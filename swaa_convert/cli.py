"""The command line: a group whose bare form is `convert`, and commands that are imported when they run."""

import difflib
import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from swaa_convert import __version__
from swaa_convert.errors import SwaaUsageError
from swaa_convert.guard import guarded, outlive_readers

# Command: (where it is, its line in --help). Nothing of it is imported for --help.
_COMMANDS = {
    "convert": ("swaa_convert.convert_command:convert", "Convert a checkpoint (what the bare form does)."),
    "inspect": ("swaa_convert.inspect.command:inspect", "Say what a converted repo does, layer by layer."),
    "verify": ("swaa_convert.verify.command:verify", "Say whether a converted repo is what was converted."),
    "refresh-code": (
        "swaa_convert.refresh_command:refresh",
        "Give a converted repo the code that this version ships.",
    ),
    "card": ("swaa_convert.card_command:card", "Write a converted repo's model card anew, with what was measured."),
    "push-to-hub": ("swaa_convert.publish.command:push_to_hub", "Push a converted repo to the Hub."),
    "recipes": ("swaa_convert.recipes_command:recipes", "List, print and import recipes."),
    "bench": ("swaa_convert.bench.command:bench", "Time a converted model beside full attention, on this machine."),
    "demo": ("swaa_convert.demo.command:demo", "Measure recipes on a small trained model."),
}
# What a bug may depend on: what loads, runs and serves models, what merges, what speaks to the Hub, what draws.
_VERSIONS = (
    *("transformers", "tokenizers", "torch", "triton", "flash-attn", "flash-attn-4", "accelerate", "safetensors"),
    *("peft", "bitsandbytes", "torchao", "vllm", "huggingface_hub", "hf_xet", "click", "matplotlib"),
)
# What ends a process from outside: a terminal or a connection that closes too, where the system has that.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# Exit statuses of Ctrl-C and of being ended.
_STOPPED = (130, *(128 + number for number in _ENDING))
_EPILOG = """\
\b
Examples:
  swaa-convert Qwen/Qwen3-8B --window 2048 --interleave odd --out ./q3-swaa
  swaa-convert ./my-llama --recipe quality --out ./my-llama-swaa
  swaa-convert inspect ./q3-swaa

`swaa-convert convert --help` lists the options of the bare form.
"""


class BareGroup(click.Group):
    """A group that takes a word which is no command for the SOURCE of `convert`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in _COMMANDS and args[0] not in ("--help", "-h", "--version"):
            _refuse_mistyped(args[0])
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with guarded():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def _refuse_mistyped(word: str) -> None:
    """A word that is almost a command, and no folder, is a typing mistake rather than a Hub id."""
    close = difflib.get_close_matches(word, _COMMANDS, n=1, cutoff=0.7)
    if close and "/" not in word and not Path(word).exists():
        raise SwaaUsageError(f"no command {word!r}: did you mean {close[0]!r}?")


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions that matter for a bug report; none of these packages is imported for it."""
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    click.echo(f"swaa-convert {__version__}")
    click.echo(f"Python {platform.python_version()}, {platform.platform()}")
    for package in _VERSIONS:
        try:
            click.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            click.echo(f"{package} not installed")
    ctx.exit()


@click.group(
    cls=BareGroup,
    epilog=_EPILOG,
    options_metavar="",
    subcommand_metavar="SOURCE --out DIR [OPTIONS] | COMMAND …",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show versions.")
def cli() -> None:
    """Turn a full-attention checkpoint into a sliding-window one (SWAA, arXiv 2512.10411).

    SOURCE is a local folder or a Hub id. The result loads anywhere with trust_remote_code=True.
    """


def main() -> None:
    """The entry point; being terminated cleans up as Ctrl-C does."""
    for number in _ENDING:
        # nohup has a process ignore SIGHUP.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)
    outlive_readers()
    try:
        cli()
    except SystemExit as error:
        if isinstance(error.code, int) and error.code in _STOPPED:
            # All is cleaned up; downloads that other threads are in would be waited for.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code)
        raise


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
