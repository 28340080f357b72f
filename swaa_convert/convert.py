"""One conversion from beginning to end: source, plan, weights, config, card, check, publish."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from swaa_convert.card import render_card
from swaa_convert.config_json import dump_json
from swaa_convert.copying import Advance, copy_file, write_file
from swaa_convert.hashing import Hasher
from swaa_convert.leftovers import sweep
from swaa_convert.manifest import MANIFEST, Merged, dump_manifest, make_manifest
from swaa_convert.merge.adapter import Adapter, refuse_inside
from swaa_convert.merge.carried import departures
from swaa_convert.merge.memory import use_huge_pages
from swaa_convert.plan import CARD, SOURCE_CARD, Plan, make_plan
from swaa_convert.progress import Progress
from swaa_convert.recipe import Recipe
from swaa_convert.recipe_file import RECIPE_FILE, dump_recipe
from swaa_convert.report import Reporter
from swaa_convert.resources import MODELING_DIR
from swaa_convert.resume import FILE, Finished, Journal, finished_bytes, reuse, weights_key
from swaa_convert.shards.layout import Shard
from swaa_convert.shards.output import Output, plan_output
from swaa_convert.shards.pool import side_by_side
from swaa_convert.shards.write import write_shard
from swaa_convert.source import LocalSource, open_source
from swaa_convert.source_files import check_small_files
from swaa_convert.space import check_space, require_space
from swaa_convert.staging import absolute, check_target, refuse_overlap, staged
from swaa_convert.stamps import Stamps, take_stamps
from swaa_convert.system_errors import one_line_errors
from swaa_convert.weights import INDEX, check_weights


def convert_checkpoint(
    source: str | Path,
    out: Path,
    recipe: Recipe,
    *,
    adapters: Sequence[Adapter] = (),
    revision: str | None = None,
    force: bool = False,
    resume: bool = False,
    link: bool = False,
    max_shard_size: int | None = None,
    clip_layers: bool = False,
    quiet: bool = True,
    check: bool = True,
    dry_run: bool = False,
) -> Path:
    """Write the converted repo of `source` under `recipe` to the folder `out` and return its path.

    Parameters
    ----------
    source:
        A local folder or a Hub id.
    adapters:
        LoRA adapters to merge, in this order (`merge.adapter.open_adapters`).
    revision:
        The Hub revision; the commit that it names is recorded.
    force:
        Replace `out` if it is a converted repo.
    resume:
        Reuse the weight files that a killed run had finished, and keep those of this one if it breaks off.
    link:
        Hard-link the weights that don't change instead of copying them.
    max_shard_size:
        Cut the weights anew, into files of at most this many bytes.
    clip_layers:
        Drop listed layers past the model's depth instead of refusing them.
    check:
        Load the result's structure before it appears.
    dry_run:
        Say everything and write nothing.
    """
    reporter = Reporter(quiet=quiet and not dry_run)
    out = Path(out)
    with one_line_errors("nothing was written"):
        if not dry_run:
            sweep(absolute(out), FILE if resume else None)
        target = check_target(out, force=force)
        opened = open_source(source, revision, quiet=quiet)
        if isinstance(opened, LocalSource):
            refuse_overlap(target, opened.root)
        refuse_inside(target, adapters)
        plan = make_plan(opened, recipe, clip_layers=clip_layers, adapters=adapters)
        reporter.plan(plan, out)
        reporter.warn(departures(plan))
        if dry_run:
            output = _output(plan, max_shard_size) if _is_here(plan) else None
            reporter.dry_run(plan, [*(name for name, _ in _written(plan)), MANIFEST], output)
            return target
        check_space(target, plan, link=link, there=finished_bytes(target) if resume else 0)
        _fetch(plan, quiet=quiet)
        check_small_files(opened, plan.small)
        stamps = take_stamps(plan.source, plan.weights, plan.adapters)
        output = _output(plan, max_shard_size)
        if output.rewritten:
            # What is rewritten needs room even where the rest is linked.
            require_space(target, output.new_bytes(link=link) - (finished_bytes(target) if resume else 0))
        with staged(target, resume=resume) as stage:
            build(plan, output, stamps, stage, reporter, link=link)
            if check:
                reporter.checked(_check(stage))
    reporter.done(out)
    return target


def build(plan: Plan, output: Output, stamps: Stamps, stage: Path, reporter: Reporter, *, link: bool) -> None:
    """Fill the folder `stage` with the converted repo."""
    small = [name for name in plan.small if name not in plan.templates]
    size = output.size + sum(plan.source.files[name] for name in small)
    with Hasher() as hasher, reporter.writing(size, len(output.shards)) as progress:
        with stamps.kept():
            _write_weights(plan, output, stamps, stage, hasher, progress, link=link)
        for name in small:
            (stage / name).parent.mkdir(exist_ok=True)
            copy_file(plan.source.path_of(name), stage / name, lambda count: None)
            hasher.add(name, stage / name, progress.advance)
        hashes = hasher.finish()
    if output.index is not None:
        write_file(stage / INDEX, output.index)
        hashes[INDEX] = hashlib.sha256(output.index).hexdigest()
    for name, data in _written(plan, unties=output.unties):
        (stage / name).parent.mkdir(exist_ok=True)
        write_file(stage / name, data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    merged = Merged(tuple(_lora(plan)), output.changed) if plan.adapters else None
    manifest = make_manifest(stage, hashes, plan.source.provenance, merged)
    write_file(stage / MANIFEST, dump_manifest(manifest))


def _write_weights(
    plan: Plan, output: Output, stamps: Stamps, stage: Path, hasher: Hasher, progress: Progress, *, link: bool
) -> None:
    """The weight files, but for those that a killed run has left finished."""
    key = weights_key(plan.source, stamps, plan.weights, plan.adapters, output.limit, link=link)
    journal, finished = Journal(stage, key), reuse(stage, key, hasher, progress)
    journal.begin(finished)

    def write(shard: Shard, watched: Callable[[Advance], Advance]) -> None:
        path, told = stage / shard.name, watched(progress.advance)
        sha256 = write_shard(shard, path, plan.source.path_of, output.merger, told, link=link)
        if sha256 is None:
            hasher.add(shard.name, path, told)
        else:
            hasher.know(shard.name, sha256)
        size = path.stat().st_size
        hasher.when_hashed(shard.name, lambda sha256: journal.add(shard.name, Finished(size, sha256)))

    for name in finished:
        progress.finished(name)
    todo = [shard for shard in output.shards if shard.name not in finished]
    with closing(side_by_side(todo, write, output.held)) as written:
        for shard in written:
            progress.finished(shard.name)


def _fetch(plan: Plan, *, quiet: bool) -> None:
    plan.source.fetch((*plan.weights, *plan.small), quiet=quiet)
    for adapter in plan.adapters:
        adapter.source.fetch((adapter.weights,), quiet=quiet)


def _is_here(plan: Plan) -> bool:
    """Whether the weights can be looked at without a download."""
    return all(isinstance(source, LocalSource) for source in (plan.source, *(each.source for each in plan.adapters)))


def _output(plan: Plan, max_shard_size: int | None) -> Output:
    """The weight files to write, after everything about weights and adapters has been checked."""
    check_weights(plan.source, plan.weights)
    merger = None
    if plan.adapters:
        use_huge_pages()
        # peft and torch are imported here and not before.
        from swaa_convert.merge.merger import Merger

        merger = Merger(plan.source, plan.source_config, plan.adapters)
    return plan_output(plan.source, plan.weights, merger, max_shard_size)


def _written(plan: Plan, *, unties: bool = False) -> Iterator[tuple[str, bytes]]:
    """What is not the source's own, byte for byte: name and content."""
    yield from plan.templates.items()
    for name in plan.code:
        yield name, (MODELING_DIR / name).read_bytes()
    config = {**plan.config, "tie_word_embeddings": False} if unties else plan.config
    yield "config.json", dump_json(config).encode()
    yield RECIPE_FILE, dump_recipe(plan.recipe, plan.source.provenance, _lora(plan)).encode()
    source_card = plan.source.read(CARD) if CARD in plan.source.files else None
    if source_card is not None:
        yield SOURCE_CARD, source_card
    yield CARD, _card(plan, source_card).encode()


def _lora(plan: Plan) -> list[dict[str, str | None]]:
    return [adapter.provenance for adapter in plan.adapters]


def _card(plan: Plan, source_card: bytes | None) -> str:
    return render_card(
        source_id=plan.source.name,
        source_revision=plan.source.revision,
        config=plan.config,
        recipe=plan.recipe,
        source_card=None if source_card is None else source_card.decode("utf-8", errors="replace"),
        cot_files=sorted(plan.templates),
        adapters=[(adapter.name, adapter.source.revision) for adapter in plan.adapters],
    )


def _check(stage: Path) -> str:
    # torch and transformers are imported here and not before.
    from swaa_convert.check import check_repo

    return check_repo(stage)
