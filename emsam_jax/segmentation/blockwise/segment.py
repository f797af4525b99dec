"""Affinities to neurons, block by block and stage by stage; it may be stopped at any time and goes on."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Unpack

from tqdm import tqdm

from emsam_jax.blocks import Ledger, Plan, RunLock, Stage, find_todo
from emsam_jax.blocks.ledger import read_facts
from emsam_jax.segmentation.blockwise.edges import Edges
from emsam_jax.segmentation.blockwise.fragments import Fragments
from emsam_jax.segmentation.blockwise.graph import Graph
from emsam_jax.segmentation.blockwise.job import Job, Options, plan_job
from emsam_jax.segmentation.blockwise.labels import Labels
from emsam_jax.segmentation.blockwise.lookup import Lookup
from emsam_jax.segmentation.blockwise.merges import Merges
from emsam_jax.segmentation.blockwise.summary import read_summary
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.volumes import Volume, VolumeError, open_volume
from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.create import create_array, occupied, write_image_metadata


class Step(NamedTuple):
    """A stage, its blocks, and the folder of its ledger."""

    stage: Stage
    plan: Plan
    ledger_url: str

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
    run: Callable[[Step], None] | None = None,
    **options: Unpack[Options],
) -> Volume:
    """Labels of affinities [c, z, y, x] as OME-Zarr at `out`, in blocks of `block` voxels (default: a shard).

    Beside the labels lie `lookup.npy`, `objects.npy` and `summary.json`; in `graph` (default: `out`) the volume
    `fragments` and of it `pieces.npy`, `fragments.npy` and `edges.npy`. Name an earlier run's output as `graph` and
    another threshold costs only the last steps.

    Called again it goes on where it was stopped, or refuses where anything differs that the labels depend on; `check`
    reads what is there and does again what is damaged. `run` does one step, by default block after block.
    """
    job = plan_job(affinities, out, recipe, block, **options)
    if job.votes:
        print(
            f"Waterz with {recipe.scorer} merges block by block, seeing {job.context} voxels around each: "
            "the labels are approximate, where those by the mean would be exact.",
            file=sys.stderr,
        )
    with contextlib.ExitStack() as locks:
        for url in dict.fromkeys([f"{job.graph}/ledger", f"{job.labels.url}/ledger"]):
            locks.enter_context(RunLock(url))
        steps = plan_steps(job)
        prepare(job, steps)
        for step in steps:
            run_in_turn(step, check=check, progress=progress) if run is None else run(step)
    if (summary := read_summary(job.labels.url)).is_suspicious:
        print(
            f"There are {summary}: false merges may have run away; a lower threshold or a guard keeps them apart.",
            file=sys.stderr,
        )
    return open_volume(job.labels.url)


def plan_steps(job: Job) -> list[Step]:
    """In the order in which they must end: each needs all blocks of those before it."""
    graph, labels = f"{job.graph}/ledger", f"{job.labels.url}/ledger"
    cut = [] if job.given else [Step(Fragments(job), job.plan, graph)]
    return [
        *cut,
        Step(Edges(job), job.plan, graph),
        Step(Graph(job), job.whole, graph),
        *([Step(Merges(job), job.plan, labels)] if job.votes else []),
        Step(Lookup(job), job.whole, labels),
        Step(Labels(job), job.plan, labels),
    ]


def prepare(job: Job, steps: list[Step]) -> None:
    """Refuses what belongs to another run, before anything is computed; creates the volumes that are not there yet."""
    for layout, stage, ledger in (
        (job.fragments, "fragments", f"{job.graph}/ledger"),
        (job.labels, "labels", f"{job.labels.url}/ledger"),
    ):
        if job.given and stage == "fragments":
            continue
        if occupied(layout.url) and read_facts(ledger, stage) is None:
            raise VolumeError(f"{layout.url}: there is a volume already, not begun by this; choose another place.")
    for step in steps:
        step.open_ledger()
    for layout in ([] if job.given else [job.fragments]) + [job.labels]:
        create_array(layout, resume=True)
        write_image_metadata(layout)


def run_in_turn(step: Step, *, check: bool = True, progress: bool = False) -> None:
    """Block after block, in this process."""
    stage, ledger = step.stage, step.open_ledger()
    todo = find_todo(step.plan, ledger, stage.is_intact if check else None)
    total = step.plan.region.voxels
    done = total - sum(block.box.voxels for block in todo.blocks)
    with tqdm(
        desc=stage.name.capitalize(),
        total=total,
        initial=done,
        unit="voxel",
        unit_scale=True,
        disable=not progress,
        file=sys.stderr,
    ) as bar:
        for block in todo.blocks:
            start = time.monotonic()
            with ledger.keeping_failures(block):
                checksum = stage.run(block)
            ledger.record(block, checksum, time.monotonic() - start)
            bar.update(block.box.voxels)
