"""Volumes to measure on: flat, elongated cells like the cut processes of a neuropil, and their affinities."""

import numpy as np
from bioimage_cpp.distance import distance_transform
from bioimage_cpp.filters import gaussian_smoothing

from emsam_jax.segmentation import ideal_affinities


def draw_cells(shape: tuple[int, int, int], voxels: int = 30_000, seed: int = 0) -> np.ndarray:
    """Cells [z, y, x] of about `voxels` voxels, three times as long in z: each voxel belongs to the nearest seed."""
    rng = np.random.default_rng(seed)
    empty = np.ones(shape, bool)
    count = max(2, empty.size // voxels)
    empty[tuple(rng.integers(0, size, count) for size in shape)] = False
    nearest = distance_transform(empty, sampling=(1 / 3, 1, 1), return_distances=False, return_indices=True)
    z, y, x = np.asarray(nearest)
    ids = np.cumsum(~empty.ravel()).astype(np.uint32).reshape(shape)
    return ids[z, y, x]


def draw_noisy_affinities(cells: np.ndarray, seed: int = 0) -> np.ndarray:
    """Affinities [3, z, y, x] as training makes them, with smooth noise of 0.1."""
    affinities = ideal_affinities(cells)
    rng = np.random.default_rng(seed)
    for channel in range(3):
        noise = gaussian_smoothing(rng.standard_normal(cells.shape, dtype=np.float32), 1.0)
        affinities[channel] += 0.1 * noise / noise.std()
    return np.clip(affinities, 0, 1, out=affinities)
