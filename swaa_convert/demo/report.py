"""The demo's results as a table for people and as JSON for programs."""

from typing import Any

from rich.table import Table

from swaa_convert.demo.evaluate import Exam, Score
from swaa_convert.demo.recipes import Settings

_STYLES = {"source": "bold", "single": "", "combined": "green"}


def table(scores: list[Score]) -> Table:
    """A row per recipe."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    made.add_column("recipe", no_wrap=True)
    for title in ("direct", "thinking", "attention work"):
        made.add_column(title, justify="right", no_wrap=True)
    for score in scores:
        shares = [_percent(share) for share in (score.direct, score.thinking, score.work)]
        made.add_row(score.contender.name, *shares, style=_STYLES[score.contender.kind])
    return made


def headline(exam: Exam, settings: Settings) -> str:
    """What was measured, in one line."""
    return (
        f"{exam.samples} fresh prompts of {exam.length:,} tokens each way; window {settings.window}, "
        f"sinks {settings.keep_first}, tail {settings.fa_tail}"
    )


def legend(exam: Exam) -> str:
    """How to read the table."""
    # The standard error of a share is largest at one half.
    error = 50 / exam.samples**0.5
    return (
        "direct, thinking: right answers, each at once or after repeating the fact (standard error up to "
        f"{error:.0f} points).\nattention work: query-key pairs of the prompt and a thinking reply, of full "
        "attention's.\ntail: the last prompt tokens see everything too. 1/4: layers 1, 5, … are full."
    )


def as_json(scores: list[Score], exam: Exam, settings: Settings) -> dict[str, Any]:
    """Everything measured; shares from 0 to 1."""
    return {
        "length": exam.length,
        "samples": exam.samples,
        "seed": exam.seed,
        "window": settings.window,
        "keep_first": settings.keep_first,
        "fa_tail": settings.fa_tail,
        "recipes": [
            {
                "name": score.contender.name,
                "kind": score.contender.kind,
                "direct": score.direct,
                "thinking": score.thinking,
                "attention_work": round(score.work, 6),
            }
            for score in scores
        ],
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
