"""Where affinities come from, and by which recipe they become neurons."""

import dataclasses
import sys
from collections.abc import Callable
from typing import NamedTuple

from distributed import Client

from emsam_jax.blocks.ledger import read_facts
from emsam_jax.reconstruction.dropping import content_of_dropped
from emsam_jax.reconstruction.request import Request
from emsam_jax.segmentation import Recipe, SegmentationError
from emsam_jax.segmentation.blockwise import check_guard, check_recipe
from emsam_jax.segmentation.tuner import CUTTING
from emsam_jax.volumes import Volume, VolumeError, open_volume
from emsam_jax.volumes.box import Box, Voxel
from emsam_jax.volumes.findings import check_present
from emsam_jax.volumes.location import normalise, open_folder, read_key, write_key

_RECIPE = "postprocess.json"  # by which labels were made, beside them


class Source(NamedTuple):
    affinities: Volume
    mask: Volume | None
    block: Voxel | None
    recipe: Recipe
    content: str = ""  # of affinities that are gone


def open_source(request: Request, connect: Callable[[], Client] | None = None) -> Source:
    """Predicts what is not there yet, by workers if there is a way to `connect`; refuses recipes before that."""
    stored = Recipe.read(request.recipe) if request.recipe else None
    if request.graph:
        return _open_earlier(request, stored)
    mask = open_volume(request.raw.mask, level=request.raw.mask_level) if request.raw.mask else None
    if request.affinities:
        recipe = choose_recipe(request, stored)
        tell(request, recipe, request.recipe)
        return Source(present(open_volume(request.affinities, channel="all")), mask, request.block, recipe)
    from emsam_jax.reconstruction.predicting import load, predict  # without a model, no jax

    trained = load(request)
    recipe = choose_recipe(request, stored or (Recipe.read(trained.recipe) if trained.recipe else None))
    tell(request, recipe, request.recipe or str(trained.recipe or ""))
    affinities = predict(request, trained, connect)
    return Source(affinities, mask, request.block, recipe, content_of_dropped(affinities, normalise(request.out)))


def present(volume: Volume, region: Box | None = None) -> Volume:
    """Raises where none of the region's chunks is there, and says where some are missing."""
    for missing in check_present(volume, region):
        print(f"segment: {missing}", file=sys.stderr)
    return volume


def choose_recipe(request: Request, found: Recipe | None) -> Recipe:
    recipe = found or Recipe()
    if request.method:
        method, _, scorer = request.method.partition("_")
        recipe = dataclasses.replace(recipe, method=method, scorer=scorer or "mean")
    if request.threshold is not None:
        recipe = dataclasses.replace(recipe, threshold=request.threshold)
    try:
        check_recipe(recipe)
    except SegmentationError as problem:
        raise SegmentationError(f"{problem} --method overrides the recipe's.") from None
    if request.guard:
        check_guard(request.guard, recipe)
    return recipe


def tell(request: Request, recipe: Recipe, origin: str) -> None:
    """By what affinities become neurons, and where each part of that comes from."""
    cut, told = recipe.fragments, f"Recipe: {recipe.method}"
    if recipe.method == "waterz":
        told += f" with {recipe.scorer}"
    if recipe.method in CUTTING:
        told += f", {cut.kind} fragments (boundary {cut.boundary_threshold:g}, seed distance {cut.seed_distance})"
    told += f", threshold {recipe.threshold:g}; from {origin or 'the defaults: nobody chose it for these affinities'}"
    told += "".join(f", but {name} from --{name}" for name in ("method", "threshold") if getattr(request, name))
    print(f"{told}.", flush=True)
    if warning := recipe.chosen.get("warning"):
        print(f"Its choice: {warning}", flush=True)


def keep_recipe(request: Request, recipe: Recipe) -> None:
    write_key(open_folder(normalise(request.out)), _RECIPE, recipe.to_json().encode())


def _open_earlier(request: Request, stored: Recipe | None) -> Source:
    """What an earlier run made its graph of."""
    graph = normalise(request.graph)
    facts = read_facts(f"{graph}/ledger", "edges")
    if facts is None:
        raise VolumeError(f"{graph}: expected the output of a run of segment.py, found none; --graph names one.")
    text = read_key(open_folder(graph), _RECIPE)
    recipe = stored if stored or text is None else Recipe.parse(text, f"{graph}/{_RECIPE}")
    chosen = choose_recipe(request, recipe)
    tell(request, chosen, request.recipe or f"{graph}/{_RECIPE}")
    affinities = open_volume(facts.text("affinities"), channel="all")
    return Source(
        affinities,
        open_volume(facts["mask"]) if facts.text("mask") else None,
        request.block or facts.sides("blocks"),
        chosen,
        content_of_dropped(affinities, graph),
    )
