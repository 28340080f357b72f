"""The paper's numbers (arXiv 2512.10411), where they are for the very family and recipe at hand."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from swaa_convert.inspect.figures import Rule
from swaa_convert.layers import full_layers
from swaa_convert.recipe import Recipe
from swaa_convert.resources import TEMPLATES_DIR
from swaa_convert.sizes import parse_size


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper: accuracy in per cent, thinking / not thinking, beside full attention's.

    window: the paper's, where the repo's is as many binary thousands.
    """

    family: str
    measured_on: str
    where: str | None
    window: str | None
    columns: list[str]
    full: list[str]
    scores: list[str]


def paper_row(source_name: str, recipe: Recipe, rule: Rule) -> PaperRow | None:
    """The paper's row for a source and its recipe, or None if the paper has no such row."""
    asks_instruct_to_reason = recipe.cot and source_name.endswith(("-Instruct", "-Instruct-2507"))
    if recipe.tuned or rule.fa_tail or asks_instruct_to_reason:
        return None
    for table in yaml.safe_load((TEMPLATES_DIR / "paper.yaml").read_text(encoding="utf-8")):
        if re.fullmatch(table["name"], source_name) and table["depth"] == rule.depth:
            for row in table["rows"]:
                if _is_rule(row, rule):
                    return _paper_row(table, row, rule)
    return None


def _is_rule(row: dict[str, Any], rule: Rule) -> bool:
    decode = rule.windowed_layers if row["fa_decode"] else ()
    return (
        rule.window in (_window(row), parse_size(row["window"]))
        and rule.keep_first == row["keep_first"]
        and rule.full_layers == full_layers(Recipe(interleave=row["interleave"]), rule.depth)
        and rule.fa_decode_layers == decode
    )


def _window(row: dict[str, Any]) -> int:
    return 1000 * int(row["window"].removesuffix("k"))


def _paper_row(table: dict[str, Any], row: dict[str, Any], rule: Rule) -> PaperRow:
    return PaperRow(
        family=table["family"],
        measured_on=table["measured_on"],
        where=table.get("where"),
        window=None if rule.window == _window(row) else f"{_window(row):,}",
        columns=table["columns"],
        full=table["full"],
        scores=row["scores"],
    )
