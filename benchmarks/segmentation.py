"""Speed and memory of fragments and agglomeration on noisy affinities, beside mahotas with scipy and bare waterz.

    python benchmarks/segmentation.py

One thread; seconds are seconds of a core. Ratios are medians over pairs of runs taken in turn.
"""

import contextlib
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import cells
import mahotas
import measure
import numpy as np
import waterz
from absl import app, flags
from scipy import ndimage

from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, make_fragments, segment_affinities
from emsam_jax.segmentation.agglomeration import SCORERS, merge_fragments, queue_bins

_QUICK = flags.DEFINE_bool("quick", False, "A small volume, once: to see that it runs.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

PARAMETERS = FragmentParameters("2d", boundary_threshold=0.5, seed_distance=7)
THRESHOLD = 0.5


def main(_: list[str]) -> None:
    shape = (4, 64, 64) if _QUICK.value else (48, 512, 512)
    repeats = 1 if _QUICK.value else _REPEATS.value
    truth = cells.draw_cells(shape, voxels=2000 if _QUICK.value else 30_000)
    affinities = cells.draw_noisy_affinities(truth)
    fragments = make_fragments(affinities, PARAMETERS)
    timed: dict[str, Callable[[], object]] = {
        "fragments": lambda: make_fragments(affinities, PARAMETERS),
        "fragments_mahotas_scipy": lambda: fragments_of_the_field(affinities),
    }
    for scorer in ("mean", "q50"):
        timed[f"waterz_{scorer}"] = functools.partial(merge_once, affinities, fragments, scorer)
        timed[f"waterz_{scorer}_bare"] = functools.partial(merge_bare, affinities, fragments, scorer)
        timed[f"fragments_waterz_relabel_{scorer}"] = functools.partial(
            segment_affinities, affinities, fragments=PARAMETERS, scorer=scorer
        )
    with quiet():
        seconds = measure.interleave(timed, repeats, time.process_time)
    rates = {name: truth.size / statistics.median(runs) / 1e6 for name, runs in seconds.items()}
    ratios = {
        "fragments_over_mahotas_scipy": measure.median_ratio(seconds["fragments_mahotas_scipy"], seconds["fragments"]),
        "waterz_mean_seconds_over_bare": measure.median_ratio(seconds["waterz_mean"], seconds["waterz_mean_bare"]),
        "waterz_q50_seconds_over_bare": measure.median_ratio(seconds["waterz_q50"], seconds["waterz_q50_bare"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "affinities.npy"
        np.save(path, affinities)
        memory = {
            scorer: measure.peak_bytes(segment_file, path, scorer) / affinities.nbytes for scorer in ("mean", "q50")
        }
    scores = {
        s: score_segmentation(segment_affinities(affinities, fragments=PARAMETERS, scorer=s), truth) for s in memory
    }
    results: dict[str, Any] = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "waterz", "numpy", "mahotas", "scipy"),
        "shape": shape,
        "voxels_a_fragment": truth.size / int(fragments.max()),
        "million_voxels_a_core_second": rates,
        "ratios": ratios,
        "peak_memory_over_affinities": memory,
        "voi": {scorer: found["voi"] for scorer, found in scores.items()},
    }
    for group in ("million_voxels_a_core_second", "ratios", "peak_memory_over_affinities", "voi"):
        print(group.replace("_", " "))
        print("\n".join(f"  {name:<34}{value:8.2f}" for name, value in results[group].items()))
    print(f"{results['voxels_a_fragment']:.0f} voxels a fragment, {int(fragments.max())} fragments of {shape}")
    print(f"Results: {measure.write('segmentation-cpu', results, _OUT.value)}")


def fragments_of_the_field(affinities: np.ndarray) -> np.ndarray:
    """The same recipe by the libraries that the field's scripts use."""
    fragments = np.empty(affinities.shape[1:], np.uint64)
    highest, width = 0, 2 * PARAMETERS.seed_distance + 1
    for z, section in enumerate(fragments):
        boundary = 1 - (affinities[1, z] + affinities[2, z]) / 2
        inside = boundary < PARAMETERS.boundary_threshold
        distance = np.asarray(ndimage.distance_transform_edt(inside))
        maxima = inside & (distance == ndimage.maximum_filter(distance, width))
        seeds, count = cast(tuple[np.ndarray, int], ndimage.label(maxima, np.ones((3, 3))))
        section[...] = mahotas.cwatershed((boundary * 65535).astype(np.uint16), seeds) + highest
        highest += count
    return fragments


def merge_once(affinities: np.ndarray, fragments: np.ndarray, scorer: str) -> np.ndarray:
    return next(merge_fragments(affinities, fragments.copy(), [THRESHOLD], scorer))


def merge_bare(affinities: np.ndarray, fragments: np.ndarray, scorer: str) -> object:
    options = {"scoring_function": SCORERS[scorer], "discretize_queue": queue_bins(scorer)}
    return next(waterz.agglomerate(affinities, [THRESHOLD], fragments=fragments.copy(), **options))


def segment_file(path: Path, scorer: str) -> None:
    segment_affinities(np.load(path), fragments=PARAMETERS, scorer=scorer)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Bare waterz prints."""
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        os.dup2(saved, 1)


if __name__ == "__main__":
    app.run(main)
