"""Stored affinities to stored labels, block by block: what blocks cost, and what a second worker brings.

    python benchmarks/blockwise.py

`overhead` is the processor time of all blocks in turn, in one process, over that of the whole volume at once (read,
fragments, waterz, write). `second_worker` is the seconds of one worker process over those of two, cluster at hand, in
turn. `daisy` is the seconds of that engine, with two workers and its own record of what is done, over ours, for the
same functions on the same blocks, with the same memory allocator; both start their workers in that time. Nothing is
resumed.
`voi_apart` is the distance of labels made in blocks from those made at once, by waterz's mean, which is exact but for
the fragments, and by q50, which is not.
"""

import dataclasses
import functools
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import cells
import measure
import numpy as np
from absl import app, flags
from daisy_engine import run_stage_by_daisy
from distributed import Client

from emsam_jax.blocks import run_in_turn
from emsam_jax.blocks.dask import open_cluster, run_stage
from emsam_jax.blocks.dask.cluster import ALLOCATOR
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Volume, Voxel, create_volume, open_volume

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed turns of each.")
_QUICK = flags.DEFINE_bool("quick", False, "A small volume, once: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

RECIPE = Recipe("waterz", 0.5, FragmentParameters("2d", boundary_threshold=0.5, seed_distance=7))
QUANTILE = dataclasses.replace(RECIPE, scorer="q50")
VOXEL_SIZE = (40.0, 4.0, 4.0)


def main(_: list[str]) -> None:
    shape, block = ((4, 64, 64), (4, 32, 32)) if _QUICK.value else ((48, 1024, 1024), (48, 256, 256))
    rounds = 1 if _QUICK.value else _ROUNDS.value
    truth = cells.draw_cells(shape, voxels=2000 if _QUICK.value else 30_000)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(store(Path(folder) / "affinities.zarr", cells.draw_noisy_affinities(truth)), Path(folder), block)
        found = {"at_once": work.at_once(), "in_blocks": work.in_blocks()}
        by_quantile = work.in_blocks(QUANTILE), work.at_once(QUANTILE)
        apart = {
            name: score_segmentation(blocks[...], once[...])["voi"]
            for name, blocks, once in (("mean", found["in_blocks"], found["at_once"]), ("q50", *by_quantile))
        }
        cost = {name: score_segmentation(labels[...], truth)["voi"] for name, labels in found.items()}
        alone = measure.interleave({"at_once": work.at_once, "in_blocks": work.in_blocks}, rounds, time.process_time)
        with open_cluster(workers=1) as one, open_cluster(workers=2) as two:
            ways = {"one": lambda: work.by_workers(one), "two": lambda: work.by_workers(two)}
            together = measure.interleave(ways, rounds)
        peers = measure.interleave({"ours": work.from_nothing, "daisy": work.by_daisy}, rounds)
    voxels = truth.size / 1e6
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "waterz", "dask", "distributed", "tensorstore", "daisy"),
        "shape": shape,
        "block": block,
        "million_voxels_a_core_second": {n: voxels / statistics.median(s) for n, s in alone.items()},
        "million_voxels_a_second": {n: voxels / statistics.median(s) for n, s in (together | peers).items()},
        "overhead": measure.median_ratio(alone["in_blocks"], alone["at_once"]),
        "second_worker": measure.median_ratio(together["one"], together["two"]),
        "daisy": measure.median_ratio(peers["daisy"], peers["ours"]),
        "voi_to_truth": cost,
        "voi_apart": apart,
    }
    for name in ("million_voxels_a_core_second", "million_voxels_a_second", "voi_to_truth", "voi_apart"):
        print(name.replace("_", " "), "  ".join(f"{n} {value:.3g}" for n, value in results[name].items()))
    for name in ("overhead", "second_worker", "daisy"):
        print(name.replace("_", " "), f"{results[name]:.2f}")
    print(f"Results: {measure.write('blockwise-cpu', results, _OUT.value)}")


class Work:
    """The same affinities to labels, in many ways, each into a place of its own."""

    def __init__(self, affinities: Volume, folder: Path, block: Voxel):
        self.affinities, self.block = affinities, block
        self.places = (folder / f"{number}.zarr" for number in itertools.count())

    def at_once(self, recipe: Recipe = RECIPE) -> Volume:
        labels = recipe.segment(self.affinities[...])
        volume = create_volume(next(self.places), labels.shape, "uint64", VOXEL_SIZE)
        volume[...] = labels
        return volume

    def in_blocks(self, recipe: Recipe = RECIPE) -> Volume:
        return segment_blockwise(self.affinities, str(next(self.places)), recipe, self.block)

    def by_workers(self, client: Client) -> None:
        def run(step: Step) -> None:
            do = run_in_turn if step.holds_all else functools.partial(run_stage, client, group=1)
            assert not do(*step, progress=False).failed

        segment_blockwise(self.affinities, str(next(self.places)), RECIPE, self.block, run=run)

    def from_nothing(self) -> None:
        with open_cluster(workers=2) as client:
            self.by_workers(client)

    def by_daisy(self) -> None:
        os.environ.update(ALLOCATOR)  # for the workers that it starts
        out = next(self.places)

        def run(step: Step) -> None:
            if step.holds_all:
                run_in_turn(*step, progress=False)
            else:
                run_stage_by_daisy(step.stage, step.plan, out, workers=2)

        segment_blockwise(self.affinities, str(out), RECIPE, self.block, run=run)


def store(path: Path, affinities: np.ndarray) -> Volume:
    create_volume(path, affinities.shape, "uint8", VOXEL_SIZE)[...] = np.rint(255 * affinities).astype(np.uint8)
    return open_volume(path, channel="all")


if __name__ == "__main__":
    app.run(main)
