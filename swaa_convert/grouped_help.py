"""Options that stand in groups in --help."""

from collections.abc import Callable
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that names the group it is listed under."""

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose --help lists its options group by group, in the order they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", "Other"), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def options_of(group: str) -> Callable[..., Callable[[Any], Any]]:
    """`click.option` for one group."""

    def option(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        return click.option(*args, cls=GroupedOption, group=group, **kwargs)

    return option


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that parses an option's text; what `parse` says in a ValueError is the usage error."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from error

    return callback
