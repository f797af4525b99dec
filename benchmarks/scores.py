"""Speed and memory of VOI and adapted Rand error, beside scikit-image's two calls, and of a large volume on disk.

    python benchmarks/scores.py

One thread in memory, two for the volume on disk; seconds in memory are seconds of a core. Ratios are medians over
pairs of runs taken in turn. The large volume is compressed HDF5, uint32, repeated from a smaller one.
"""

import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cells
import h5py
import measure
import numpy as np
from absl import app, flags
from skimage.metrics import adapted_rand_error, variation_of_information

from emsam_jax.scores import score_segmentation

_QUICK = flags.DEFINE_bool("quick", False, "A small volume, once: to see that it runs.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.")
_GVOXEL = flags.DEFINE_float("gvoxel", 2.0, "Size of the volume on disk, 2^30 voxels.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")


def main(_: list[str]) -> None:
    shape = (8, 48, 64) if _QUICK.value else (64, 512, 512)
    truth = cells.draw_cells(shape)
    labels = np.where(truth % 7 == 0, truth // 2, np.roll(truth, (1, 2, 2), (0, 1, 2)))  # shifted borders and merges
    timed = {
        "ours": functools.partial(score_segmentation, labels, truth),
        "scikit_image": functools.partial(score_by_scikit_image, labels, truth),
    }
    seconds = measure.interleave(timed, 1 if _QUICK.value else _REPEATS.value, time.process_time)
    ours, (theirs_voi, theirs_arand) = score_segmentation(labels, truth), score_by_scikit_image(labels, truth)
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.npy"
        np.save(pair, np.stack([labels, truth]))
        memory = {name: measure.peak_bytes(score_file, pair, name) for name in timed}
        on_disk = measure_on_disk(Path(folder), labels, truth)
    results: dict[str, Any] = {
        "machine": measure.machine(),
        "versions": measure.versions("numpy", "scikit-image", "scipy", "h5py"),
        "shape": shape,
        "million_voxels_a_core_second": {n: truth.size / statistics.median(s) / 1e6 for n, s in seconds.items()},
        "times_as_fast": measure.median_ratio(seconds["scikit_image"], seconds["ours"]),
        "peak_bytes": memory,
        "peak_memory_over_scikit_image": memory["ours"] / memory["scikit_image"],
        "largest_difference": max(abs(ours["voi"] - theirs_voi), abs(ours["arand"] - theirs_arand)),
        "on_disk": on_disk,
    }
    for name, value in results["million_voxels_a_core_second"].items():
        print(f"{name:<14}{value:8.1f} Mvoxel/s a core, peak memory {memory[name] / 2**20:8.1f} MiB")
    print(
        f"{results['times_as_fast']:.1f} times as fast, in {results['peak_memory_over_scikit_image']:.2f} of the "
        f"memory; the scores differ by {results['largest_difference']:.1e}"
    )
    print(
        f"{on_disk['voxels'] / 2**30:.2f} Gvoxel on disk in {on_disk['seconds']:.0f} s "
        f"within {on_disk['peak_bytes'] / 2**20:.0f} MiB"
    )
    print(f"Results: {measure.write('scores-cpu', results, _OUT.value)}")


def measure_on_disk(folder: Path, labels: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    repeats = 2 if _QUICK.value else round(_GVOXEL.value * 2**30 / truth.size)
    path = folder / "volumes.h5"
    shape = (repeats * truth.shape[0], *truth.shape[1:])
    with h5py.File(path, "w") as file:
        for name, volume in (("labels", labels), ("truth", truth)):
            dataset = file.create_dataset(name, shape, np.uint32, chunks=(8, 48, 64), compression="lzf")
            for start in range(0, shape[0], truth.shape[0]):
                dataset[start : start + truth.shape[0]] = volume
    start = time.perf_counter()
    peak = measure.peak_bytes(score_on_disk, path)
    return {"voxels": int(np.prod(shape)), "seconds": time.perf_counter() - start, "peak_bytes": peak, "threads": 2}


def score_by_scikit_image(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    voi = variation_of_information(truth, labels, ignore_labels=(0,)).sum()
    return float(voi), float(adapted_rand_error(truth, labels, ignore_labels=(0,))[0])


def score_file(path: Path, by: str) -> None:
    labels, truth = np.load(path)
    {"ours": score_segmentation, "scikit_image": score_by_scikit_image}[by](labels, truth)


def score_on_disk(path: Path) -> None:
    with h5py.File(path) as file:
        score_segmentation(file["labels"], file["truth"], threads=2)  # type: ignore[reportArgumentType]


if __name__ == "__main__":
    app.run(main)
