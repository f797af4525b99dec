"""Stored affinities to stored labels, block by block: what blocks cost, and what a second worker brings.

    python benchmarks/blockwise.py

`overhead` is the processor time of all blocks in turn, in one process, over that of the whole volume at once (read,
fragments, waterz, write). `second_worker` is the seconds of one worker process over those of two, cluster at hand, in
turn. Nothing is resumed; data is read back to check nothing. `voi_apart` is the distance of labels made in blocks from
those made at once, by waterz's mean, which is exact but for the fragments, and by q50, which is not.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cells
import measure
import numpy as np
from absl import app, flags

from emsam_jax.blocks.cluster import open_cluster
from emsam_jax.blocks.engine import run_stage
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.volumes import Volume, create_volume, open_volume

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
        stored = store(Path(folder) / "affinities.zarr", cells.draw_noisy_affinities(truth))
        places = (Path(folder) / f"{number}.zarr" for number in itertools.count())
        at_once = segment_at_once(stored, next(places))
        in_blocks = segment_blockwise(stored, str(next(places)), RECIPE, block)
        apart = {"mean": score_segmentation(in_blocks[...], at_once[...])["voi"]}
        by_quantile = [
            segment_at_once(stored, next(places), QUANTILE),
            segment_blockwise(stored, str(next(places)), QUANTILE, block),
        ]
        apart["q50"] = score_segmentation(by_quantile[1][...], by_quantile[0][...])["voi"]
        found = {"at_once": at_once, "in_blocks": in_blocks}
        cost = {name: score_segmentation(labels[...], truth)["voi"] for name, labels in found.items()}
        ways: dict[str, Callable[[], object]] = {
            "at_once": lambda: segment_at_once(stored, next(places)),
            "in_blocks": lambda: segment_blockwise(stored, str(next(places)), RECIPE, block),
        }
        alone = measure.interleave(ways, rounds, time.process_time)
        with open_cluster(workers=1) as one, open_cluster(workers=2) as two:

            def by(client: Any) -> object:
                def run(step: Any) -> None:
                    assert not run_stage(client, *step, group=1, progress=False).failed

                return segment_blockwise(stored, str(next(places)), RECIPE, block, run=run)

            together = measure.interleave({"one": lambda: by(one), "two": lambda: by(two)}, rounds)
    voxels = truth.size / 1e6
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "waterz", "dask", "distributed", "tensorstore"),
        "shape": shape,
        "block": block,
        "million_voxels_a_core_second": {n: voxels / statistics.median(s) for n, s in alone.items()},
        "million_voxels_a_second": {n: voxels / statistics.median(s) for n, s in together.items()},
        "overhead": measure.median_ratio(alone["in_blocks"], alone["at_once"]),
        "second_worker": measure.median_ratio(together["one"], together["two"]),
        "voi_to_truth": cost,
        "voi_apart": apart,
    }
    for name in ("million_voxels_a_core_second", "million_voxels_a_second", "voi_to_truth", "voi_apart"):
        print(name.replace("_", " "), "  ".join(f"{n} {value:.3g}" for n, value in results[name].items()))
    print(f"overhead {results['overhead']:.2f}  second worker {results['second_worker']:.2f}")
    print(f"Results: {measure.write('blockwise-cpu', results, _OUT.value)}")


def store(path: Path, affinities: np.ndarray) -> Volume:
    create_volume(path, affinities.shape, "uint8", VOXEL_SIZE)[...] = np.rint(255 * affinities).astype(np.uint8)
    return open_volume(path, channel="all")


def segment_at_once(affinities: Volume, path: Path, recipe: Recipe = RECIPE) -> Volume:
    labels = recipe.segment(affinities[...])
    volume = create_volume(path, labels.shape, "uint64", VOXEL_SIZE)
    volume[...] = labels
    return volume


if __name__ == "__main__":
    app.run(main)
