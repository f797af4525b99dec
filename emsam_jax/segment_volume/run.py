"""Turns a request into labels, block by block, on the workers of a Dask cluster; and tells how far such a run is."""

import contextlib
import functools
import itertools

from distributed import Client

from emsam_jax.blocks import describe_failures, describe_status, plan_blocks, read_facts, run_in_turn
from emsam_jax.blocks.dask import run_stage
from emsam_jax.errors import UserError
from emsam_jax.segment_volume.request import SegmentationRequest
from emsam_jax.segment_volume.source import drop_affinities, expect_done, keep_recipe, open_source
from emsam_jax.segmentation import in_force, read_edits
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.storage import SEGMENTATION, claim, normalise
from emsam_jax.volumes import Box, Volume, box_of, parse_box

_STAGES = ("predict", "fragments", "edges", "graph", "merges", "lookup", "labels")
_WHOLE = ("graph", "lookup", "queue")  # of one block
_EVERYWHERE = Box((0, 0, 0), (1 << 20, 1 << 21, 1 << 21))


def segment_volume(request: SegmentationRequest) -> Volume:
    """Segments a volume; resumes when it is called again."""
    if request.ckpt:  # whose affinities come first, and below the labels
        claim(request.out, SEGMENTATION, [request.raw.raw, request.raw.mask])
    edits = in_force(read_edits(request.edits)) if request.edits else None
    with contextlib.ExitStack() as opened:

        @functools.cache
        def connect() -> Client:
            return opened.enter_context(request.workers.open())

        source = open_source(request, connect if request.workers.elsewhere else None)
        do = functools.partial(run_stage, connect())

        def run(step: Step) -> None:
            if source.content and step.reads_affinities:
                expect_done(step, check=request.check)
                return
            run_blocks = run_in_turn if step.holds_all else do
            report = run_blocks(*step, check=request.check, progress=request.progress)
            if report.failed:
                raise UserError(describe_failures(step.stage.name, report.failed))
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
            edits=edits,
            queue=request.queue,
            content=source.content,
            check=request.check,
            run=run,
        )
    keep_recipe(request, source.recipe)
    return labels


def describe_run(out: str) -> str:
    """Describes how far each stage is that was begun."""
    out = normalise(out)
    lines = []
    levels = map("pyramid-{}".format, itertools.count(1))
    pyramid = itertools.takewhile(lambda stage: read_facts(f"{out}/ledger", stage) is not None, levels)
    for stage in (*_STAGES, *pyramid, "queue"):
        ledger = f"{out}/affinities/ledger" if stage == "predict" else f"{out}/ledger"
        facts = read_facts(ledger, stage)
        if facts is None:
            continue
        predicted = stage == "predict"
        whole = box_of(parse_box(facts.text("region"), _EVERYWHERE).shape if predicted else facts.sides("shape"))
        block = whole.shape if stage in _WHOLE else facts.sides("blocks")
        lines.append(describe_status(ledger, {stage: plan_blocks(whole, whole, block, (1, 1, 1))}))
    if not lines:
        raise UserError(f"{out}: expected a run of emsam segment there, found none; --out names its labels.")
    return "\n".join(lines)
