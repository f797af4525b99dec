"""From a request to labels: affinities by this process and its devices, all else by the workers of a Dask cluster."""

import dataclasses
from typing import Any

from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.engine import run_stage
from emsam_jax.reconstruction.request import Request
from emsam_jax.segmentation import Recipe, SegmentationError
from emsam_jax.segmentation.blockwise import Step, check_recipe, segment_blockwise
from emsam_jax.volumes import Volume, open_volume

_LISTED = 20  # failed blocks that a message names


class ReconstructionError(ValueError):
    """Blocks that could not be done; the others are."""


def reconstruct(request: Request) -> Volume:
    """Called again it goes on where it was stopped."""
    stored = Recipe.read(request.recipe) if request.recipe else None
    if request.affinities:
        recipe = choose_recipe(request, stored)
        affinities = open_volume(request.affinities, channel="all")
    else:
        from emsam_jax.reconstruction.predicting import load, predict  # without a model, no jax

        trained = load(request)
        recipe = choose_recipe(request, stored or (Recipe.read(trained.recipe) if trained.recipe else None))
        affinities = predict(request, trained)
    mask = open_volume(request.raw.mask, level=request.raw.mask_level) if request.raw.mask else None
    place: dict[str, Any] = {"dashboard": request.dashboard}
    with open_cluster(request.scheduler, request.workers, memory=request.memory, **place) as client:

        def run(step: Step) -> None:
            report = run_stage(client, *step, check=request.check, progress=request.progress)
            if report.failed:
                raise ReconstructionError(describe_failures(step.stage.name, report.failed))

        return segment_blockwise(
            affinities,
            request.out,
            recipe,
            request.block,
            mask=mask,
            graph=request.graph or None,
            check=request.check,
            run=run,
        )


def choose_recipe(request: Request, found: Recipe | None) -> Recipe:
    """Refused before anything is computed where it cannot be followed block by block."""
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
    return recipe


def describe_failures(stage: str, failed: list[tuple[str, str]]) -> str:
    lines = [f"{len(failed)} blocks of {stage} failed; the same command tries them again:"]
    lines += [f"  {block}  {why}" for block, why in failed[:_LISTED]]
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED} more; --status lists them")
    return "\n".join(lines)
