"""What a conversion prints: the plan, the progress, the check and how to load the result."""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import click

from swaa_convert.errors import one_line
from swaa_convert.layermap import describe_layers, render_layer_map
from swaa_convert.merge.adapter import Adapter
from swaa_convert.plan import Plan
from swaa_convert.progress import Progress, progress
from swaa_convert.shards.output import Output
from swaa_convert.sizes import show_bytes
from swaa_convert.weights import INDEX


class Reporter:
    """Says each step on standard output; quiet, it says nothing. Progress goes to standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def say(self, text: str = "") -> None:
        if not self.quiet:
            click.echo(text)

    def plan(self, plan: Plan, target: Path) -> None:
        """Everything that was decided."""
        commit = f" at {plan.source.revision}" if plan.source.revision else ""
        self.say(f"Source   {plan.source.name}{commit}")
        self.say(f"         {plan.family.architecture}, {plan.depth} layers, {show_bytes(plan.size)} to copy")
        self.say(f"Output   {target}")
        for adapter in plan.adapters:
            self.say(f"Merge    {_adapter(adapter)}")
        for label, text in recipe_lines(plan):
            self.say(f"{label:8} {text}")
        full = plan.full if plan.recipe.window is not None else range(plan.depth)
        self.say(f"\n{render_layer_map(full, plan.depth, plan.fa_decode)}\n")
        for hint in plan.hints:
            self.say(f"Note     {one_line(hint)}")
        if plan.recipe.tuned and not plan.adapters:
            self.say("Note     this recipe is for weights tuned under SWAA: untuned ones do far worse with it")

    def dry_run(self, plan: Plan, written: Iterable[str], output: Output | None) -> None:
        """What would be done, file by file; `output` is known where the weights are here."""
        weights = plan.weights if output is None else [shard.name for shard in output.shards]
        rewritten = [] if output is None else output.rewritten
        kept = [name for name in (*weights, *plan.small) if name not in (*plan.templates, *rewritten)]
        self.say(f"Copy     {', '.join(kept)}")
        if output is not None and output.merger is not None:
            self.say(f"Merge    into {output.merger.modules} modules{', untying the embeddings' * output.unties}")
        if rewritten:
            self.say(f"Rewrite  {', '.join(rewritten)}")
        index = [INDEX] if output is not None and output.index is not None else []
        self.say(f"Write    {', '.join([*index, *written])}")
        self.say(f"Config   swaa_config: {json.dumps(plan.swaa)}")
        self.say("Dry run: nothing was written.")

    def warn(self, warnings: Iterable[str]) -> None:
        """What the user should know before it is too late, on standard error."""
        for warning in warnings:
            if not self.quiet:
                click.echo(f"Warning: {one_line(warning)}", err=True)

    def writing(self, size: int, files: int) -> AbstractContextManager[Progress]:
        """Show how the weights are written, `size` bytes in so many files."""
        return progress(size, files, quiet=self.quiet)

    def checked(self, result: str) -> None:
        self.say(f"Checked  {result}")

    def done(self, target: Path) -> None:
        shown = json.dumps(str(target))
        self.say("Done     load it with")
        self.say(f"           AutoModelForCausalLM.from_pretrained({shown}, trust_remote_code=True)")


def _adapter(adapter: Adapter) -> str:
    """An adapter in words."""
    kinds = [name for name, key in (("rsLoRA", "use_rslora"), ("DoRA", "use_dora")) if adapter.config.get(key)]
    commit = f" at {adapter.source.revision}" if adapter.source.revision else ""
    return f"{adapter.name}{commit} ({' and '.join(kinds) or 'LoRA'}, rank {adapter.config.get('r')})"


def recipe_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """The recipe in words, (label, text)."""
    recipe = plan.recipe
    if recipe.window is None:
        yield "Window", "none: every layer keeps full attention"
    else:
        yield "Window", f"{recipe.window} tokens, and the first {recipe.keep_first} stay visible to every token"
        yield "Layers", f"full attention in {describe_layers(plan.full) if plan.full else 'no layer'}{_why(plan)}"
        if plan.dropped:
            yield "Dropped", f"layers {describe_layers(plan.dropped)} of the recipe: past the model's depth"
        yield "Decode", _decode(plan)
    if recipe.fa_tail:
        yield "", f"so do the last {recipe.fa_tail} tokens of the prompt"
    if recipe.cot:
        changed = ", ".join(sorted(plan.templates)) or "nothing: its template always reasons"
        yield "Template", f"asks for reasoning before the answer (changed: {changed})"


def _decode(plan: Plan) -> str:
    forced = plan.swaa["force_fa_decode"]
    if not forced:
        return "generated tokens see the window too, where there is one"
    where = "every layer" if forced is True else f"layers {describe_layers(forced)}"
    return f"generated tokens see everything in {where}"


def _why(plan: Plan) -> str:
    if plan.parity is not None:
        return f"\n         {plan.parity.interleave}: {plan.parity.evidence}"
    return f" ({plan.recipe.interleave})" if plan.recipe.interleave else ""
