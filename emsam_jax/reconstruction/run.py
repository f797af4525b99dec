"""From a request to labels, block by block, by the workers of a Dask cluster.

Without a scheduler's address affinities are predicted by this process and its devices, before there is a worker.
Tables of all blocks are put together by this process, so that workers need memory for a block and no more.
"""

import functools

from emsam_jax.blocks import run_in_turn
from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.engine import run_stage
from emsam_jax.blocks.report import describe_failures
from emsam_jax.reconstruction.request import Request
from emsam_jax.reconstruction.source import keep_recipe, open_source
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Volume


class ReconstructionError(ValueError):
    """Blocks that could not be done; the others are."""


def reconstruct(request: Request) -> Volume:
    """Called again it goes on where it was stopped."""
    source = open_source(request)
    with open_cluster(request.scheduler, request.workers, memory=request.memory, dashboard=request.dashboard) as client:

        def run(step: Step) -> None:
            do = run_in_turn if step.holds_all else functools.partial(run_stage, client)
            report = do(*step, check=request.check, progress=request.progress)
            if report.failed:
                raise ReconstructionError(describe_failures(step.stage.name, report.failed))

        labels = segment_blockwise(
            source.affinities,
            request.out,
            source.recipe,
            source.block,
            mask=source.mask,
            graph=request.graph or None,
            check=request.check,
            run=run,
        )
    keep_recipe(request, source.recipe)
    return labels
