"""Measures what synthetic raw has to share with real raw: noise, likeness of neighbours, greys, sizes. No labels."""

import itertools

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing
from jaxtyping import Shaped

from emsam_jax.volumes.synthetic.tissue import Image

_AXES = "zyx"
_DISTANCES = (1, 2, 5, 10)  # voxels
_AROUND = 8.0  # voxels, standard deviation of what counts as surroundings


def measure_raw(raw: Shaped[np.ndarray, "z y x"]) -> dict[str, float]:
    """Measures raw of any range; greys and noise are shares of the range between its percentiles 0.5 and 99.5."""
    low, high = np.percentile(raw, (0.5, 99.5))
    grey = ((raw.astype(np.float32) - low) / max(high - low, 1e-6)).astype(np.float32)
    found = {"deviation": float(grey.std())}
    found |= {f"percentile_{p}": float(np.percentile(grey, p)) for p in (5, 25, 50, 75, 95)}
    found |= {f"noise_{_AXES[a]}{_AXES[b]}": _noise(grey, a, b) for a, b in itertools.combinations(range(3), 2)}
    for axis, distance in itertools.product(range(3), _DISTANCES):
        found[f"correlation_{_AXES[axis]}{distance}"] = _correlation(grey, axis, distance)
    found |= {f"left_at_{sigma}": float(gaussian_smoothing(grey, float(sigma)).std() / grey.std()) for sigma in (2, 8)}
    surroundings = gaussian_smoothing(grey, _AROUND)
    smooth = gaussian_smoothing(grey, 1.0)
    dark = smooth < surroundings - 0.5 * (smooth - surroundings).std()
    found |= {"dark_run": _run(dark), "pale_run": _run(~dark)}
    return found


def _noise(grey: Image, one: int, other: int) -> float:
    """Returns the standard deviation of white noise by Immerkaer's filter, which planes, ramps and edges leave at 0."""
    bent = np.diff(np.diff(grey, 2, axis=one), 2, axis=other)
    return float(np.median(np.abs(bent)) / 0.6745 / 6)


def _correlation(grey: Image, axis: int, distance: int) -> float:
    n = grey.shape[axis]
    before, after = (grey.take(range(start, start + n - distance), axis).ravel() for start in (0, distance))
    return float(np.corrcoef(before, after)[0, 1])


def _run(marked: Shaped[np.ndarray, "z y x"]) -> float:
    """Returns the mean length along x of the runs of marked voxels: how thick membranes are, and how wide cells."""
    begins = marked[..., 1:] & ~marked[..., :-1]
    return float(marked.sum() / max(int(begins.sum()) + int(marked[..., 0].sum()), 1))
