"""From a request to labels, block by block, by the workers of a Dask cluster.

Affinities are predicted by workers elsewhere, or else by this process and its devices, before there is a worker.
Tables of all blocks are put together by this process, so that workers need memory for a block and no more.
"""

import contextlib
import functools

from distributed import Client

from emsam_jax.blocks import run_in_turn
from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.engine import run_stage
from emsam_jax.blocks.report import describe_failures
from emsam_jax.reconstruction.dropping import drop_affinities, expect_done
from emsam_jax.reconstruction.request import Request
from emsam_jax.reconstruction.source import keep_recipe, open_source
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Volume
from emsam_jax.volumes.destination import SEGMENTATION, claim


class ReconstructionError(ValueError):
    """Blocks that could not be done; the others are."""


def reconstruct(request: Request) -> Volume:
    """Called again it goes on where it was stopped."""
    if request.ckpt:  # whose affinities come first, and below the labels
        claim(request.out, SEGMENTATION, [request.raw.raw, request.raw.mask])
    with contextlib.ExitStack() as opened:

        @functools.cache
        def connect() -> Client:
            return opened.enter_context(
                open_cluster(
                    request.scheduler,
                    request.workers,
                    memory=request.memory,
                    dashboard=request.dashboard,
                    system=request.cluster,
                    job=request.job,
                    tls=request.tls,
                )
            )

        source = open_source(request, connect if request.scheduler or request.cluster else None)
        do = functools.partial(run_stage, connect())

        def run(step: Step) -> None:
            if source.content and step.reads_affinities:
                expect_done(step, check=request.check)
                return
            run_blocks = run_in_turn if step.holds_all else do
            report = run_blocks(*step, check=request.check, progress=request.progress)
            if report.failed:
                raise ReconstructionError(describe_failures(step.stage.name, report.failed))
            if step.stage.name == "lookup" and not request.keep_affinities:
                drop_affinities(source.affinities)

        labels = segment_blockwise(
            source.affinities,
            request.out,
            source.recipe,
            source.block,
            mask=source.mask,
            graph=request.graph or None,
            format=request.format,
            guard=request.guard,
            content=source.content,
            check=request.check,
            run=run,
        )
    keep_recipe(request, source.recipe)
    return labels
