"""Runs the stages from affinities to neurons, block by block, resumably."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

from emsam_jax.blocks import (
    Ledger,
    LockLostError,
    Plan,
    RunLock,
    Stage,
    check_room,
    describe_failures,
    read_facts,
    run_in_turn,
)
from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise.job import Job, Options, plan_job
from emsam_jax.segmentation.blockwise.stage_1_fragments import Fragments
from emsam_jax.segmentation.blockwise.stage_2_edges import Edges
from emsam_jax.segmentation.blockwise.stage_3_graph import Graph
from emsam_jax.segmentation.blockwise.stage_4_merges import Merges
from emsam_jax.segmentation.blockwise.stage_5_lookup import Lookup, read_summary
from emsam_jax.segmentation.blockwise.stage_6_labels import Labels, plan_pyramid
from emsam_jax.segmentation.blockwise.stage_7_queue import Queue
from emsam_jax.segmentation.edits import Edit
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.storage import SEGMENTATION, claim
from emsam_jax.volumes import Volume, Voxel, create_array, occupied, open_volume, plan_levels, write_image_metadata


class Step(NamedTuple):
    """A stage, its blocks, and the folder of its ledger."""

    stage: Stage
    plan: Plan
    ledger_url: str

    @property
    def holds_all(self) -> bool:
        """Whether it holds tables of all blocks: it runs in the calling process, not in a worker's memory."""
        return isinstance(self.stage, Graph | Lookup | Queue)

    @property
    def reads_affinities(self) -> bool:
        return isinstance(self.stage, Fragments | Edges | Merges)

    def open_ledger(self) -> Ledger:
        return Ledger(self.ledger_url, self.stage.name, self.stage.identity())


def segment_blockwise(
    affinities: Volume,
    out: str | Path,
    recipe: Recipe,
    block: Voxel | None = None,
    *,
    check: bool = True,
    progress: bool = False,
    run: Callable[[Step], object] | None = None,
    **options: Unpack[Options],
) -> Volume:
    """Segments affinities [c, z, y, x] to labels with their pyramid at `out`, in blocks of `block` voxels (default: a
    shard).

    Next to the labels it writes `lookup.npy`, `objects.npy`, `summary.json` and, where a `queue` is asked for,
    `queue.csv`; in `graph` (default: `out`) the volume `fragments`, and of it `pieces.npy`, `fragments.npy` and
    `edges.npy`. With an earlier run's output as `graph`, another threshold or other `edits` cost only the lookup, the
    labels, their pyramid and the queue.

    Resumes when it is called again, or refuses where anything differs that the labels depend on; `check` compares
    finished blocks with their checksums and does damaged ones again. `run` does one step, by default block after block.
    """
    job = plan_job(affinities, out, recipe, block, **options)
    if not occupied(job.labels.url):
        check_room(job.plan, job.labels.url)
    if job.votes:
        print(
            f"Waterz with {recipe.scorer} merges block by block, seeing {job.context} voxels around each: "
            "the labels are approximate, where those by the mean would be exact.",
            file=sys.stderr,
        )
    claim_outputs(job)
    with contextlib.ExitStack() as locks:
        for url in dict.fromkeys([f"{job.graph}/ledger", f"{job.labels.url}/ledger"]):
            locks.enter_context(RunLock(url))
        steps = plan_steps(job, options.get("edits"))
        prepare(job, steps)
        for step in steps:
            if run is not None:
                run(step)
            elif failed := run_in_turn(*step, check=check, progress=progress).failed:
                raise UserError(describe_failures(step.stage.name, failed))
    if (summary := read_summary(job.labels.url)).is_suspicious:
        print(
            f"There are {summary}: where that is no neuron's share, false merges have run away; a lower threshold or a "
            "guard keeps them apart.",
            file=sys.stderr,
        )
    return open_volume(job.labels.url)


def plan_steps(job: Job, edits: Sequence[Edit] | None = None) -> list[Step]:
    """Lists the steps in order: each needs all blocks of those before it."""
    graph, labels = f"{job.graph}/ledger", f"{job.labels.url}/ledger"
    cut = [] if job.given else [Step(Fragments(job), job.plan, graph)]
    return [
        *cut,
        Step(Edges(job), job.plan, graph),
        Step(Graph(job), job.whole, graph),
        *([Step(Merges(job), job.plan, f"{job.merges}/ledger")] if job.votes else []),
        Step(Lookup(job, tuple(edits or ())), job.whole, labels),
        Step(Labels(job), job.plan, labels),
        *[Step(level, level.plan, labels) for level in plan_pyramid(job)],
        *([Step(Queue(job, tuple(edits or ())), job.whole, labels)] if job.queue else []),
    ]


def claim_outputs(job: Job) -> None:
    """Claims the places of outputs; predicted affinities lie below the labels."""
    given = [job.mask, job.given, *([] if job.affinities == f"{job.labels.url}/affinities" else [job.affinities])]
    claim(job.labels.url, SEGMENTATION, given if job.graph == job.labels.url else [*given, job.graph])
    claim(job.graph, SEGMENTATION, [job.mask, job.given])


def prepare(job: Job, steps: list[Step]) -> None:
    """Refuses what belongs to another run, before anything is computed; creates the volumes that are missing."""
    for layout, stage, ledger in (
        (job.fragments, "fragments", f"{job.graph}/ledger"),
        (job.labels, "labels", f"{job.labels.url}/ledger"),
    ):
        if job.given and stage == "fragments":
            continue
        if occupied(layout.url) and read_facts(ledger, stage) is None:
            raise UserError(f"{layout.url}: there is a volume already, but no ledger of it; choose another place.")
    for step in steps:
        try:
            step.open_ledger()
        except LockLostError:
            raise
        except UserError as error:
            if isinstance(step.stage, Fragments | Edges | Graph):
                raise
            raise UserError(f"{error} As --graph={job.graph} its fragments and edges serve another output.") from None
    for levels in ([] if job.given else [[job.fragments]]) + [plan_levels(job.labels)]:
        for layout in levels:
            create_array(layout, resume=True)
        write_image_metadata(*levels)
