"""The plain whole-volume sliding window, in numpy and double precision."""

import itertools
from collections.abc import Callable

import numpy as np

Voxel = tuple[int, int, int]
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def slide(raw: np.ndarray, window: Voxel, stride: Voxel, predict: Predict) -> np.ndarray:
    """[z, y, x] on [0, 1] -> [c, z, y, x]. `predict` gives a window's affinities and weights, [z, y, x, c] each."""
    wide = np.pad(raw.astype(float), [(side, side) for side in window], mode="reflect")
    axes = [np.exp(-(np.linspace(-1 + 1 / n, 1 - 1 / n, n) ** 2) / (2 * 0.2**2)) for n in window]
    gaussian = np.einsum("z,y,x->zyx", *axes)[..., None]
    total = weight = 0.0
    starts = [
        [s for s in range(-10 * step, size, step) if s + side > 0]
        for size, side, step in zip(raw.shape, window, stride, strict=True)
    ]
    for start in itertools.product(*starts):
        at = tuple(slice(s + side, s + 2 * side) for s, side in zip(start, window, strict=True))
        values, valid = predict(wide[at])
        sums = np.zeros((2, *wide.shape, values.shape[-1]))
        sums[0][at], sums[1][at] = gaussian * valid * values, gaussian * valid
        total, weight = total + sums[0], weight + sums[1]
    inside = tuple(slice(side, -side) for side in window)
    return np.moveaxis((total / np.maximum(weight, 1e-300))[inside], -1, 0)
