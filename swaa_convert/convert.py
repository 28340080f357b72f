"""One conversion from beginning to end: source, plan, weights, config, card, check, publish."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from swaa_convert.card import render_card
from swaa_convert.config_json import dump_json
from swaa_convert.copying import Advance, copy_file, link_file, write_file
from swaa_convert.hashing import Hasher, known_sha256
from swaa_convert.leftovers import sweep
from swaa_convert.manifest import MANIFEST, Merged, dump_manifest, make_manifest
from swaa_convert.plan import CARD, SOURCE_CARD, Plan, make_plan
from swaa_convert.recipe import Recipe
from swaa_convert.recipe_file import RECIPE_FILE, dump_recipe
from swaa_convert.report import Reporter
from swaa_convert.resources import MODELING_DIR
from swaa_convert.source import LocalSource, open_source
from swaa_convert.source_files import check_small_files
from swaa_convert.space import check_space
from swaa_convert.staging import absolute, check_target, refuse_overlap, staged
from swaa_convert.system_errors import one_line_errors
from swaa_convert.weights import check_weights


def convert_checkpoint(
    source: str | Path,
    out: Path,
    recipe: Recipe,
    *,
    revision: str | None = None,
    force: bool = False,
    link: bool = False,
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
    revision:
        The Hub revision; the commit that it names is recorded.
    force:
        Replace `out` if it is a converted repo.
    link:
        Hard-link the weights instead of copying them.
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
            sweep(absolute(out))
        target = check_target(out, force=force)
        opened = open_source(source, revision, quiet=quiet)
        if isinstance(opened, LocalSource):
            refuse_overlap(target, opened.root)
        plan = make_plan(opened, recipe, clip_layers=clip_layers)
        reporter.plan(plan, out)
        if dry_run:
            reporter.dry_run(plan, [*(name for name, _ in _written(plan)), MANIFEST])
            return target
        check_space(target, plan, link=link)
        opened.fetch((*plan.weights, *plan.small), quiet=quiet)
        check_weights(opened, plan.weights)
        check_small_files(opened, plan.small)
        with staged(target) as stage:
            build(plan, stage, reporter, link=link)
            if check:
                reporter.checked(_check(stage))
    reporter.done(out)
    return target


def build(plan: Plan, stage: Path, reporter: Reporter, *, link: bool, merged: Merged | None = None) -> None:
    """Fill the folder `stage` with the converted repo."""
    with Hasher() as hasher, reporter.copying(plan.size) as advance:
        for name in plan.weights:
            _place(plan, name, stage, hasher, advance, link=link and name.endswith(".safetensors"))
        for name in plan.small:
            if name not in plan.templates:
                _place(plan, name, stage, hasher, advance, link=False)
        hashes = hasher.finish()
    for name, data in _written(plan):
        (stage / name).parent.mkdir(exist_ok=True)
        write_file(stage / name, data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    manifest = make_manifest(stage, hashes, plan.source.provenance, merged)
    write_file(stage / MANIFEST, dump_manifest(manifest))


def _place(plan: Plan, name: str, stage: Path, hasher: Hasher, advance: Advance, *, link: bool) -> None:
    (stage / name).parent.mkdir(exist_ok=True)
    put = link_file if link else copy_file
    origin, target = plan.source.path_of(name), stage / name
    with hasher.following(name, target, advance, known_sha256(origin)) as told:
        put(origin, target, told)


def _written(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """What is not the source's own, byte for byte: name and content."""
    yield from plan.templates.items()
    for name in plan.code:
        yield name, (MODELING_DIR / name).read_bytes()
    yield "config.json", dump_json(plan.config).encode()
    yield RECIPE_FILE, dump_recipe(plan.recipe, plan.source.provenance).encode()
    source_card = plan.source.read(CARD) if CARD in plan.source.files else None
    if source_card is not None:
        yield SOURCE_CARD, source_card
    yield CARD, _card(plan, source_card).encode()


def _card(plan: Plan, source_card: bytes | None) -> str:
    return render_card(
        source_id=plan.source.name,
        source_revision=plan.source.revision,
        config=plan.config,
        recipe=plan.recipe,
        source_card=None if source_card is None else source_card.decode("utf-8", errors="replace"),
        cot_files=sorted(plan.templates),
    )


def _check(stage: Path) -> str:
    # torch and transformers are imported here and not before.
    from swaa_convert.check import check_repo

    return check_repo(stage)
