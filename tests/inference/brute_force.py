"""The plain whole-volume sliding window, in numpy and double precision."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

Voxel = tuple[int, int, int]
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def slide(raw: np.ndarray, window: Voxel, stride: Voxel, offsets: Sequence[Voxel], predict: Predict) -> np.ndarray:
    """[z, y, x] on [0, 1] -> [c, z, y, x]. `predict` gives a window's affinities and weights, [z, y, x, c] each.

    Edges with both voxels in the window decide alone; the others only for edges that are never so.
    """
    wide = np.pad(raw.astype(float), [(side, side) for side in window], mode="reflect")
    here = np.moveaxis(np.indices(window), 0, -1)[..., None, :]
    places = here + np.array(offsets)
    middles = ((here + places) / 2 + 0.5) / np.array(window) * 2 - 1  # of the edges, in a window of [-1, 1]
    gaussian = np.exp(-(middles**2).sum(-1) / (2 * 0.2**2))
    both = ((places >= 0) & (places < np.array(window))).all(-1)
    sums = np.zeros((2, 2, *wide.shape, len(offsets)))  # of edges in a window and of all, values and weights
    starts = [
        [s for s in range(-10 * step, size, step) if s + side > 0]
        for size, side, step in zip(raw.shape, window, stride, strict=True)
    ]
    for start in itertools.product(*starts):
        at = tuple(slice(s + side, s + 2 * side) for s, side in zip(start, window, strict=True))
        values, valid = predict(wide[at])
        for (total, weight), counted in zip(sums, (both, 1), strict=True):
            total[at] += gaussian * valid * counted * values
            weight[at] += gaussian * valid * counted
    inside = tuple(slice(side, -side) for side in window)
    within, every = (total / np.maximum(weight, 1e-300) for total, weight in sums)
    return np.moveaxis(np.where(sums[0, 1] > 0, within, every)[inside], -1, 0)
