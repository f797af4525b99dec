"""What choosing a threshold on one part of a volume costs on another, on affinities made from the labels.

    EMSAM_DATA=../shared/data python benchmarks/choosing.py

Affinities are those of a calibrated network after a loss that balances the classes, which moves all log odds by the
ratio of the classes' weights, so that 0.5 is no longer even odds: ideal, blurred and noisy ones, several seeds each.
FIB-25's sections 125-149 choose fragments, scorer and threshold. The cost is by how much VOI on 150-249 lies above that
of the best threshold there for the same fragments and scorer, which only the truth can tell.
"""

import os
import time
from typing import Any

import held_out
import measure
import numpy as np
from absl import app, flags

from emsam_jax.segmentation import FragmentParameters, ideal_affinities

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_KINDS = flags.DEFINE_list("kinds", ["ideal", "blurred", "noisy"], "Of affinities.")
_SEEDS = flags.DEFINE_integer("seeds", 8, "Of each kind.")
_SIDE = flags.DEFINE_integer("side", 0, "Voxels along y and x that are used; 0: all.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume, two seeds: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

# Borders widened by a voxel before they are learned, blur of the truth in voxels, and noise of the log odds.
KINDS = {"ideal": (True, 0.7, 0.3), "blurred": (False, 2.0, 0.3), "noisy": (True, 0.7, 1.5)}
MOST = 10.0  # of a class's weight, as in training
FRAGMENTS = (FragmentParameters("3d", 0.3, 5), FragmentParameters("3d", 0.5, 3))


def main(_: list[str]) -> None:
    tissue = held_out.draw_tissue() if _QUICK.value else held_out.read_fib25(_DATA.value)
    if _SIDE.value:
        tissue = tissue._replace(labels=np.ascontiguousarray(tissue.labels[:, : _SIDE.value, : _SIDE.value]))
    start, rows = time.perf_counter(), []
    for kind in _KINDS.value:
        for seed in range(2 if _QUICK.value else _SEEDS.value):

            def predict(low: int, high: int, kind: str = kind, seed: int = seed) -> np.ndarray:
                return balanced_affinities(tissue.labels[low:high], kind, 1000 * seed + low)

            rows.append({"kind": kind, "seed": seed, **held_out.judge(tissue, predict, FRAGMENTS)})
            row, oracle = rows[-1], rows[-1]["oracle_no_result"]
            print(
                f"{kind:<8} {seed}: waterz {row['scorer']}, threshold {row['threshold']:g}, VOI "
                f"{row['ways']['all']['voi']:.3f} (oracle {oracle['voi']:.3f} at {oracle['threshold']:g}), "
                f"cost {row['cost']:.1%}",
                flush=True,
            )
    costs = {kind: held_out.over_seeds([row["cost"] for row in rows if row["kind"] == kind]) for kind in _KINDS.value}
    results: dict[str, Any] = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "numpy", "waterz"),
        "volume": tissue.name,
        "shape": tissue.labels.shape,
        "costs": costs,
        "mean_cost": float(np.mean([row["cost"] for row in rows])),
        "seconds": time.perf_counter() - start,
        "rows": rows,
    }
    print(f"mean cost {results['mean_cost']:.1%}: " + ", ".join(f"{k} {c['mean']:.1%}" for k, c in costs.items()))
    print(f"Results: {measure.write('choosing-cpu', results, _OUT.value)}")


def balanced_affinities(labels: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Affinities [3, z, y, x] of labels: what is calibrated, seen through the weights of the classes."""
    widen, blur, noise = KINDS[kind]
    positive = ideal_affinities(labels, widen=widen, sigma=0).mean((1, 2, 3), keepdims=True)
    affinities = np.clip(ideal_affinities(labels, widen=widen, sigma=blur), 0.002, 0.998)
    odds = np.log(affinities / (1 - affinities))
    odds += noise * np.random.default_rng(seed).standard_normal(odds.shape, dtype=np.float32)
    odds += np.log(np.minimum(0.5 / positive, MOST) / np.minimum(0.5 / (1 - positive), MOST))
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


if __name__ == "__main__":
    app.run(main)
