"""What a small classifier of single voxels makes of FIB-25, all of it chosen on sections that it was not trained on.

    EMSAM_DATA=../shared/data python benchmarks/pixel_classifier.py

36 filters of the raw and two hidden layers of 48 predict the three short affinities, in seconds: what any network must
beat, and the affinities of a real, class-balanced loss to try post-processing on. Sections 0-124 train, 125-149 choose
fragments, scorer and threshold, and 150-249 are scored with these frozen; the oracle is the best threshold of the same
fragments and scorer there, found by looking at the truth. `looks` counts the runs that wrote the results: each has seen
the report part once.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import held_out
import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
from absl import app, flags
from bioimage_cpp.filters import (
    gaussian_gradient_magnitude,
    gaussian_smoothing,
    hessian_of_gaussian_eigenvalues,
    laplacian_of_gaussian,
    structure_tensor_eigenvalues,
)

from emsam_jax.data import affinities_from_labels

_DATA = flags.DEFINE_string("data", os.environ.get("EMSAM_DATA", ""), "Folder of fib25_training2.h5.")
_SEEDS = flags.DEFINE_integer("seeds", 4, "Classifiers, each from a seed of its own.")
_STEPS = flags.DEFINE_integer("steps", 1500, "Of each training.")
_QUICK = flags.DEFINE_bool("quick", False, "A small synthetic volume, once: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

SIGMAS = (1.0, 1.6, 2.5, 4.0)  # voxels; nine filters each
HIDDEN = (48, 48)
BATCH = 4096  # voxels a step
_HALO = 20  # sections around those that are filtered: what the widest filter sees
_SLAB = 50  # sections classified at a time
_NAME = "pixel_classifier-cpu"

Params = list[tuple[jax.Array, jax.Array]]


def main(_: list[str]) -> None:
    tissue = held_out.draw_tissue() if _QUICK.value else held_out.read_fib25(_DATA.value)
    rows = []
    for seed in range(1 if _QUICK.value else _SEEDS.value):
        start = time.perf_counter()
        trained = slice(0, tissue.choose)
        classifier = Classifier(tissue.raw[trained], tissue.labels[trained], seed, 50 if _QUICK.value else _STEPS.value)
        seconds = time.perf_counter() - start
        found = held_out.judge(tissue, lambda low, high, to=classifier: to.predict(tissue.raw, low, high))
        rows.append({"seed": seed, "training_seconds": seconds, **found})
        print(_tell(rows[-1]), flush=True)
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "jax", "numpy", "optax", "waterz"),
        "volume": tissue.name,
        "looks": 1 + _looks(),
        **held_out.all_seeds(rows),
    }
    print(f"The report part was looked at {results['looks']} times.")
    print(f"Results: {measure.write(_NAME, results, _OUT.value)}")


def _tell(row: dict[str, Any]) -> str:
    scores, oracle = row["ways"]["all"], row["oracle_no_result"]
    return (
        f"seed {row['seed']}: waterz {row['scorer']}, boundary {row['boundary_threshold']}, seed distance "
        f"{row['seed_distance']}, threshold {row['threshold']:g}: VOI {scores['voi']:.3f}, ARAND {scores['arand']:.3f} "
        f"(oracle {oracle['voi']:.3f} at {oracle['threshold']:g}); trained in {row['training_seconds']:.0f} s"
    )


def _looks() -> int:
    """By the results that are there."""
    path = Path(_OUT.value or measure.RESULTS) / f"{_NAME}.json"
    return json.loads(path.read_text())["looks"] if path.exists() else 0


class Classifier:
    """Trained on a part of a volume, raw and labels [z, y, x]; knows nothing beyond it."""

    def __init__(self, raw: np.ndarray, labels: np.ndarray, seed: int, steps: int):
        features = filter_raw(raw)
        self.mean, self.deviation = features.mean(0), features.std(0)
        affinities, valid = affinities_from_labels(labels)
        truth, known = (np.moveaxis(np.asarray(a), 0, -1).reshape(-1, 3) for a in (affinities, valid))
        positive = truth.sum(0) / known.sum(0)
        weights = jnp.asarray(np.stack([0.5 / (1 - positive), 0.5 / positive]))  # of 0 and 1, by channel
        batches = _draw((features - self.mean) / self.deviation, truth, known, seed, steps)
        self.params = _fit(_initial(seed, features.shape[1]), batches, weights, steps)

    def predict(self, raw: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Affinities [3, z, y, x] of sections of a volume that may continue beyond them."""
        affinities = np.empty((3, stop - start, *raw.shape[1:]), np.float32)
        for first in range(start, stop, _SLAB):
            last = min(first + _SLAB, stop)
            low = max(first - _HALO, 0)
            features = filter_raw(raw[low : last + _HALO], slice(first - low, last - low))
            logits = np.asarray(_classify(self.params, (features - self.mean) / self.deviation))
            found = (1 / (1 + np.exp(-logits))).reshape(last - first, *raw.shape[1:], 3)
            affinities[:, first - start : last - start] = np.moveaxis(found, -1, 0)
        return affinities


def filter_raw(raw: np.ndarray, sections: slice = slice(None)) -> np.ndarray:
    """Features [voxels, 36] of some sections of raw [z, y, x]."""
    grey = raw.astype(np.float32) / 255
    filters = (gaussian_smoothing, gaussian_gradient_magnitude, laplacian_of_gaussian)
    columns = []
    for sigma in SIGMAS:
        columns += [filtered(grey, sigma)[sections].ravel() for filtered in filters]
        for eigenvalues in (
            hessian_of_gaussian_eigenvalues(grey, sigma),
            structure_tensor_eigenvalues(grey, sigma / 2, sigma),
        ):
            columns += list(eigenvalues[sections].reshape(-1, 3).T)
    return np.stack(columns, 1)


def _draw(
    features: np.ndarray, truth: np.ndarray, known: np.ndarray, seed: int, steps: int
) -> Iterator[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(0, len(features), BATCH)
        yield features[chosen], truth[chosen], known[chosen]


def _initial(seed: int, inputs: int) -> Params:
    sizes = (inputs, *HIDDEN, 3)
    keys = jax.random.split(jax.random.key(seed), len(HIDDEN) + 1)
    return [
        (jax.random.normal(key, (before, after)) * np.sqrt(2 / before), jnp.zeros((1, after)))
        for key, before, after in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


@jax.jit
def _classify(params: Params, features: jax.Array) -> jax.Array:
    for weights, bias in params[:-1]:
        features = jax.nn.relu(features @ weights + bias)
    weights, bias = params[-1]
    return features @ weights + bias


def _fit(params: Params, batches: Iterator[tuple[np.ndarray, ...]], weights: jax.Array, steps: int) -> Params:
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(params: Params, features: jax.Array, truth: jax.Array, known: jax.Array) -> jax.Array:
        losses = optax.sigmoid_binary_cross_entropy(_classify(params, features), truth)
        return (losses * jnp.where(truth > 0, weights[1:], weights[:1]) * known).mean()

    @jax.jit
    def step(params: Params, state: Any, *batch: jax.Array) -> tuple[Params, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, *batch), state)
        moved: Any = optax.apply_updates(params, updates)
        return moved, state

    state = optimizer.init(params)
    for batch in batches:
        params, state = step(params, state, *batch)
    return params


if __name__ == "__main__":
    app.run(main)
