"""--help of every command: what it does, a line for every option, and examples whose options exist."""

from collections.abc import Iterator

import click
import pytest

from swaa_convert.cli import cli
from tests.docs.checks import check_command


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())


COMMANDS = {"": cli, **dict(every_command())}


def page(name: str) -> str:
    return COMMANDS[name].get_help(
        click.Context(COMMANDS[name], info_name=f"swaa-convert {name}", max_content_width=80)
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_examples(name: str) -> None:
    _, _, examples = page(name).partition("Example")
    joined = examples.replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in joined if line.strip().startswith("swaa-convert ")]
    assert commands
    for command in commands:
        check_command(command)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    options = [param for param in COMMANDS[name].params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help and not isinstance(option.type, click.Choice)] == []


@pytest.mark.parametrize("name", ["convert", "push-to-hub", "bench", "demo", "inspect"])
def test_options_stand_in_groups(name: str) -> None:
    assert "\nOptions:" not in page(name)
