"""Opens affinities and the recipe to segment them by; drops predicted affinities once nothing needs them."""

import dataclasses
import sys
from collections.abc import Callable
from typing import NamedTuple

import tensorstore as ts
from distributed import Client

from emsam_jax.blocks import DROPPED, Block, Ledger, RunLock, drop_block, find_todo, plan_blocks, read_facts
from emsam_jax.errors import UserError
from emsam_jax.segment_volume.request import SegmentationRequest
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import Step, check_guard, check_recipe
from emsam_jax.storage import normalise, open_folder, read_key, shared_context, write_key
from emsam_jax.volumes import Box, Volume, Voxel, box_of, open_volume
from emsam_jax.volumes.verify import check_present

_STAGE = "predict"
_RECIPE = "postprocess.json"  # by which labels were made, next to them


def drop_affinities(affinities: Volume) -> None:
    """Deletes the affinities block by block, each recorded as dropped before; the first before all others."""
    url = affinities.url
    with RunLock(f"{url}/ledger"):
        facts, ledger = read_facts(f"{url}/ledger", _STAGE), Ledger.existing(f"{url}/ledger", _STAGE)
        if facts is None or ledger is None:
            raise UserError(f"{url}: expected affinities that emsam segment predicted, found no ledger of it.")
        maps = [open_to_write(each) for each in (url, f"{url}/coarse")[: 1 + facts.flag("coarse")]]
        whole = box_of(affinities.shape[-3:])
        for block in plan_blocks(whole, whole, facts.sides("blocks"), (1, 1, 1)):
            entry = ledger.entry(block)
            if entry is None or entry.checksum != DROPPED:
                ledger.record(block, DROPPED, entry.seconds if entry else 0.0)
            for volume in maps:
                drop_block(volume, block.box)


def open_to_write(url: str) -> Volume:
    spec = open_volume(url, channel="all").store.spec()
    return Volume(ts.open(spec, context=shared_context(), open=True, read=True, write=True).result(), url)


def content_of_dropped(affinities: Volume, graph: str) -> str:
    """Returns the fingerprint of affinities that are dropped, from the graph's ledger; empty while they are there."""
    ledger = Ledger.existing(f"{affinities.url}/ledger", _STAGE)
    facts = read_facts(f"{graph}/ledger", "edges")
    if ledger is None or facts is None:
        return ""
    first = ledger.entry(Block((0, 0, 0), affinities.box))
    return facts.text("content") if first and first.checksum == DROPPED else ""


def expect_done(step: Step, *, check: bool) -> None:
    """Refuses a step that would read dropped affinities."""
    todo = find_todo(step.plan, step.open_ledger(), step.stage.is_intact if check else None)
    if todo.indices:
        raise UserError(
            f"{step.ledger_url.removesuffix('/ledger')}: expected all of {step.stage.name}, because the affinities "
            f"were deleted (--nokeep_affinities), found {len(todo.indices)} of {len(todo.plan)} blocks damaged or "
            "missing; choose another output to predict again."
        )


class SegmentationSource(NamedTuple):
    affinities: Volume
    mask: Volume | None
    block: Voxel | None
    recipe: Recipe
    content: str = ""  # of affinities that are gone


def open_source(request: SegmentationRequest, connect: Callable[[], Client] | None = None) -> SegmentationSource:
    """Opens or predicts affinities, on workers if there is a way to `connect`; refuses bad recipes before that."""
    stored = Recipe.read(request.recipe) if request.recipe else None
    if request.graph:
        return _open_earlier(request, stored)
    mask = open_volume(request.raw.mask, level=request.raw.mask_level) if request.raw.mask else None
    if request.affinities:
        recipe = choose_recipe(request, stored)
        tell(request, recipe, request.recipe)
        return SegmentationSource(present(open_volume(request.affinities, channel="all")), mask, request.block, recipe)
    from emsam_jax.segment_volume.prediction import load, predict  # without a model, no jax

    trained = load(request)
    recipe = choose_recipe(request, stored or (Recipe.read(trained.recipe) if trained.recipe else None))
    tell(request, recipe, request.recipe or str(trained.recipe or ""))
    affinities = predict(request, trained, connect)
    return SegmentationSource(
        affinities, mask, request.block, recipe, content_of_dropped(affinities, normalise(request.out))
    )


def present(volume: Volume, region: Box | None = None) -> Volume:
    """Raises where none of the region's chunks is there; prints where some are missing."""
    for missing in check_present(volume, region):
        print(f"segment: {missing}", file=sys.stderr)
    return volume


def choose_recipe(request: SegmentationRequest, found: Recipe | None) -> Recipe:
    recipe = found or Recipe()
    if request.method:
        method, _, scorer = request.method.partition("_")
        recipe = dataclasses.replace(recipe, method=method, scorer=scorer or "mean")
    if request.threshold is not None:
        recipe = dataclasses.replace(recipe, threshold=request.threshold)
    try:
        check_recipe(recipe)
    except UserError as problem:
        raise UserError(f"{problem} --method overrides the recipe's.") from None
    if request.guard:
        check_guard(request.guard, recipe)
    return recipe


def tell(request: SegmentationRequest, recipe: Recipe, origin: str) -> None:
    """Prints the method, fragments and threshold, and where each comes from."""
    cut, told = recipe.fragments, f"Recipe: {recipe.method}"
    if recipe.method == "waterz":
        told += f" with {recipe.scorer}"
    if recipe.cuts:
        told += f", {cut.kind} fragments (boundary {cut.boundary_threshold:g}, seed distance {cut.seed_distance})"
    told += f", threshold {recipe.threshold:g}; from {origin or 'the defaults: nobody chose it for these affinities'}"
    told += "".join(f", but {name} from --{name}" for name in ("method", "threshold") if getattr(request, name))
    print(f"{told}.", flush=True)
    if request.queue and recipe.probability is None:
        print("It has no probabilities of merges, which emsam eval fits: the queue goes by margins.", flush=True)
    if warning := recipe.chosen.get("warning"):
        print(f"Its choice: {warning}", flush=True)


def keep_recipe(request: SegmentationRequest, recipe: Recipe) -> None:
    write_key(open_folder(normalise(request.out)), _RECIPE, recipe.to_json().encode())


def _open_earlier(request: SegmentationRequest, stored: Recipe | None) -> SegmentationSource:
    """Opens the affinities and the recipe of an earlier run's graph."""
    graph = normalise(request.graph)
    facts = read_facts(f"{graph}/ledger", "edges")
    if facts is None:
        raise UserError(f"{graph}: expected the output of a run of emsam segment, found none; --graph names one.")
    text = read_key(open_folder(graph), _RECIPE)
    recipe = stored if stored or text is None else Recipe.parse(text, f"{graph}/{_RECIPE}")
    chosen = choose_recipe(request, recipe)
    tell(request, chosen, request.recipe or f"{graph}/{_RECIPE}")
    affinities = open_volume(facts.text("affinities"), channel="all")
    return SegmentationSource(
        affinities,
        open_volume(facts["mask"]) if facts.text("mask") else None,
        request.block or facts.sides("blocks"),
        chosen,
        content_of_dropped(affinities, graph),
    )
