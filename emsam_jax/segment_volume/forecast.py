"""Estimates what a run would take, from a sample in the middle of its volume; writes to a temporary folder alone."""

import dataclasses
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from tqdm import tqdm

from emsam_jax.blocks import Ledger, run_in_turn
from emsam_jax.blocks.dask import open_cluster, run_stage
from emsam_jax.errors import UserError
from emsam_jax.segment_volume.request import SegmentationRequest
from emsam_jax.segment_volume.source import choose_recipe
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import (
    EDGE,
    Step,
    plan_job,
    plan_steps,
    read_table,
    segment_blockwise,
    usual_block,
)
from emsam_jax.storage import usable_cores
from emsam_jax.volumes import Box, Volume, Voxel, create_volume, open_volume
from emsam_jax.volumes.verify import check_present

_BLOCKS = 2  # in a sample of the segmentation
_HELD = 10  # bytes that putting a table of edges together and agglomerating it takes, for each of the table's


class Cost(NamedTuple):
    """What a stage takes for the whole volume."""

    stage: str
    blocks: int
    block: Voxel
    seconds: float  # of one worker, or of the process that is called
    by: str


@dataclasses.dataclass
class Forecast:
    raw: str
    whole: Box
    costs: list[Cost]
    stored: dict[str, float]  # bytes on disk, by what they are
    worker_bytes: int  # at its peak
    edges: float
    workers: int
    warnings: list[str]

    def __str__(self) -> str:
        sides = " x ".join(map(str, self.whole.shape))
        lines = [f"{self.raw}: {sides} voxels (z, y, x), {as_size(self.whole.voxels)} in all", ""]
        lines += [*(f"Warning: {text}" for text in self.warnings), *[""][: len(self.warnings)]]
        lines.append(f"{'stage':<12}{'blocks':>9}  {'of (z, y, x)':<20}{'seconds a block':>16}{'in all':>12}  by")
        for stage, blocks, block, seconds, by in self.costs:
            shape = " x ".join(map(str, block))
            lines.append(f"{stage:<12}{blocks:>9}  {shape:<20}{seconds / blocks:>16.3g}{as_time(seconds):>12}  {by}")
        shared = sum(cost.seconds for cost in self.costs if cost.by == "a worker")
        alone = sum(cost.seconds for cost in self.costs) - shared
        lines += ["", f"About {as_time(alone + shared / self.workers)} with {self.workers} of these workers."]
        kept = ", ".join(f"{name} {as_size(count)}B" for name, count in self.stored.items())
        lines.append(f"On disk about {as_size(sum(self.stored.values()))}B: {kept}.")
        lines.append(f"Memory of a worker at its peak: {as_size(self.worker_bytes)}B.")
        held = as_size(self.edges * EDGE.itemsize * _HELD)
        lines.append(f"Memory of this process for the graph: about {held}B, for {as_size(self.edges)} edges.")
        lines.append("Nothing was written. Measured on a sample in the middle, on this machine; others differ.")
        return "\n".join(lines)


def forecast_run(request: SegmentationRequest) -> Forecast:
    if request.graph:
        raise UserError("--dry_run tells what a first run takes: expected --ckpt or --affinities, found --graph.")
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if request.affinities:
            stored = Recipe.read(request.recipe) if request.recipe else None
            recipe, source = choose_recipe(request, stored), open_volume(request.affinities, channel="all")
            whole, costs, predicted, warnings = source.box, [], 0.0, check_present(source)
            block = request.block or usual_block(whole.shape, source.voxel_size_zyx)
            box = whole.middle((block[0], block[1], _BLOCKS * block[2]))
            values = source[(slice(None), *box.slices)]
        else:
            from emsam_jax.segment_volume.prediction import sample_prediction  # without a model, no jax

            print("Predicting some windows in the middle; to compile the model may take minutes.", file=sys.stderr)
            found = sample_prediction(request, folder / "predicted")
            recipe, source, whole, warnings = found.recipe, found.affinities, found.whole, found.warnings
            costs = [Cost("predict", found.blocks, found.block, found.seconds, "this process")]
            predicted = stored_bytes(folder / "predicted/0") / source.box.voxels * whole.voxels
            block = request.block or usual_block(whole.shape, source.voxel_size_zyx)
            values = source[...]
        values = filled(values, min_each((block[0], block[1], _BLOCKS * block[2]), whole.shape))
        sample = create_volume(folder / "sample", values.shape, values.dtype, source.voxel_size_zyx)
        sample[...] = values
        measured = sample_segmentation(sample, folder / "out", recipe, min_each(block, whole.shape), request.queue)
        times = whole.voxels / math.prod(values.shape[1:])
        shape = (3, *whole.shape)
        empty = create_volume(folder / "whole", shape, values.dtype, source.voxel_size_zyx)  # metadata alone
        a_voxel = {step.stage.name: seconds / step.plan.region.voxels for step, seconds in measured.steps}
        for step in plan_steps(
            plan_job(empty, folder / "all", recipe, block, content="of a sample", queue=request.queue)
        ):
            # A level that the sample is too small for: as long as labels, of which it has fewer.
            seconds = a_voxel.get(step.stage.name, a_voxel["labels"]) * step.plan.region.voxels
            by = "this process" if step.holds_all else "a worker"
            costs.append(Cost(step.stage.name, len(step.plan), step.plan.block, seconds, by))
        kept = {"affinities": predicted} if predicted else {}
        kept |= {name: count * times for name, count in measured.stored.items()}
        kept["tables and ledger"] += measured.once
        edges = len(read_table(str(folder / "out"), "edges.npy", EDGE)) * times
        return Forecast(
            request.affinities or request.raw.raw,
            whole,
            costs,
            kept,
            measured.peak,
            edges,
            request.workers.count or cores,
            warnings,
        )


class MeasuredSample(NamedTuple):
    steps: list[tuple[Step, float]]  # with its seconds
    stored: dict[str, int]  # bytes that grow with the volume
    once: int  # bytes of metadata, which do not
    peak: int


def sample_segmentation(affinities: Volume, out: Path, recipe: Recipe, block: Voxel, queue: int) -> MeasuredSample:
    """Segments the sample as a run does, with one worker, and measures it."""
    steps = []
    sample = open_volume(affinities.url, channel="all")
    print("Segmenting two blocks in the middle, stage by stage.", file=sys.stderr)
    with open_cluster(workers=1) as client, tqdm(desc="Sample", unit="stage", leave=False) as bar:

        def run(step: Step) -> None:
            do = run_in_turn(*step, progress=False) if step.holds_all else run_stage(client, *step, progress=False)
            if do.failed:
                raise UserError(f"A block of the sample failed: {do.failed[0][1]}.")
            ledger = Ledger.existing(step.ledger_url, step.stage.name)
            entries = [ledger.entry(one) for one in step.plan] if ledger else []
            steps.append((step, sum(entry.seconds for entry in entries if entry)))
            bar.update()

        # The places of a queue are as many in the sample as in the whole: one, and the ranking is what grows.
        segment_blockwise(sample, out, recipe, block, run=run, queue=min(1, queue))
        peaks: Any = client.run(peak_bytes)
    once = stored_bytes(out, "*.json")
    fragments, labels = (
        sum(stored_bytes(path) - stored_bytes(path, "*.json") for path in paths)
        for paths in ([out / "fragments"], [path for path in out.iterdir() if path.name.isdigit()])
    )
    stored = {
        "fragments": fragments,
        "labels": labels,
        "tables and ledger": stored_bytes(out) - once - fragments - labels,
    }
    return MeasuredSample(steps, stored, once, max(peaks.values()))


def filled(values: Shaped[np.ndarray, "c z y x"], shape: Voxel) -> Shaped[np.ndarray, "c z y x"]:
    """Mirrors affinities until they fill a block: a worker's memory and time depend on the size of its blocks."""
    more = [(0, max(0, side - own)) for side, own in zip(shape, values.shape[1:], strict=True)]
    return np.pad(values, [(0, 0), *more], mode="symmetric")


def min_each(one: Voxel, other: Voxel) -> Voxel:
    z, y, x = (min(pair) for pair in zip(one, other, strict=True))
    return z, y, x


def stored_bytes(path: Path, names: str = "*") -> int:
    files = [path] if path.is_file() else path.rglob(names)
    return sum(file.stat().st_size for file in files if file.is_file())


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def as_size(count: int | float) -> str:
    return tqdm.format_sizeof(count)


def as_time(seconds: int | float) -> str:
    return tqdm.format_interval(seconds)
