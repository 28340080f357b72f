"""YAML from strangers: plain values only, small, without tags, aliases or repeated keys."""

from collections.abc import Hashable
from typing import Any

import yaml

from swaa_convert.errors import SwaaError

MAX_BYTES = 64 * 1024


class _StrictLoader(yaml.SafeLoader):
    """Safe loading that also refuses aliases (a few lines can expand to gigabytes) and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are not allowed", event)
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag is not None:
            raise _refusal(f"tags such as {event.tag} are not allowed", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice or is no plain key",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_yaml(data: bytes, where: str) -> Any:
    """The plain values in `data`; `where` names it in the one line that says what is wrong."""
    if len(data) > MAX_BYTES:
        raise SwaaError(f"{where}: larger than {MAX_BYTES // 1024} KiB, so it is no recipe")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_StrictLoader)
    except UnicodeDecodeError as error:
        raise SwaaError(f"{where}: not UTF-8 text") from error
    except RecursionError as error:
        raise SwaaError(f"{where}: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SwaaError(f"{where}: {_one_line(error)}") from error


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)
