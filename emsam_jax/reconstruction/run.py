"""From a request to labels: affinities by this process and its devices, all else by the workers of a Dask cluster."""

from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.engine import run_stage
from emsam_jax.reconstruction.request import Request
from emsam_jax.reconstruction.source import keep_recipe, open_source
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Volume

_LISTED = 20  # failed blocks that a message names


class ReconstructionError(ValueError):
    """Blocks that could not be done; the others are."""


def reconstruct(request: Request) -> Volume:
    """Called again it goes on where it was stopped."""
    source = open_source(request)
    with open_cluster(request.scheduler, request.workers, memory=request.memory, dashboard=request.dashboard) as client:

        def run(step: Step) -> None:
            report = run_stage(client, *step, check=request.check, progress=request.progress)
            if report.failed:
                raise ReconstructionError(describe_failures(step.stage.name, report.failed))

        labels = segment_blockwise(
            source.affinities,
            request.out,
            source.recipe,
            source.block,
            mask=source.mask,
            graph=request.graph or None,
            guard=request.guard,
            check=request.check,
            run=run,
        )
    keep_recipe(request, source.recipe)
    return labels


def describe_failures(stage: str, failed: list[tuple[str, str]]) -> str:
    lines = [f"{len(failed)} blocks of {stage} failed; the same command tries them again:"]
    lines += [f"  {block}  {why}" for block, why in failed[:_LISTED]]
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED} more; --status lists them")
    return "\n".join(lines)
