"""Makes affinities without a network: from labels, as a perfect one would, and from smoothed grey values."""

from collections.abc import Sequence

import numpy as np
from bioimage_cpp.affinities import compute_affinities
from bioimage_cpp.filters import gaussian_smoothing
from jaxtyping import Float32, Integer, Shaped

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.recipe import Recipe


def ideal_affinities(
    labels: Integer[np.ndarray, "z y x"],
    offsets: Sequence[tuple[int, int, int]] = SHORT_OFFSETS,
    *,
    widen: bool = True,
    sigma: float = 0.7,
) -> Float32[np.ndarray, "c z y x"]:
    """Computes affinities of labels: borders widened by face neighbours, then smoothed with a 3D Gaussian, in voxels.

    Widening is for the three short channels only. `widen=False, sigma=0` gives hard affinities. A partner outside the
    volume counts as the voxel itself, so that the volume's faces are no borders.
    """
    labels = np.ascontiguousarray(labels, np.uint64)
    reach = np.abs(offsets).max(0) + int(np.ceil(4 * sigma))  # so that what lies beyond cannot be seen
    padded = [np.pad(widened, [(n, n) for n in reach], mode="edge") for widened in (_widen_borders(labels), labels)]
    inner = tuple(slice(n, n + size) for n, size in zip(reach, labels.shape, strict=True))
    affinities = np.empty((len(offsets), *labels.shape), np.float32)
    for channel, offset in enumerate(offsets):
        source = padded[0 if widen and channel < 3 else 1]
        whole = compute_affinities(source, [offset], ignore_label=0, return_mask=False)[0]
        affinities[channel] = gaussian_smoothing(whole, sigma)[inner] if sigma else whole[inner]
    return np.clip(affinities, 0, 1, out=affinities)


def _widen_borders(labels: Integer[np.ndarray, "z y x"]) -> Integer[np.ndarray, "z y x"]:
    """Returns the labels, with background where a face neighbour is another neuron."""
    widened = labels.copy()
    for axis in range(3):
        before, here = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        border = (before != here) & (before != 0) & (here != 0)
        along = np.moveaxis(widened, axis, 0)
        along[1:][border] = 0
        along[:-1][border] = 0
    return widened


def intensity_affinities(
    raw: Shaped[np.ndarray, "z y x"], *, isotropic: bool, sigma: float = 1.0
) -> Float32[np.ndarray, "3 z y x"]:
    """Computes smoothed grey values, as shares of the type's largest, as affinities of all three channels."""
    grey = raw.astype(np.float32)
    if raw.dtype.kind in "iu":
        grey /= np.iinfo(raw.dtype).max
    if isotropic:
        smooth = gaussian_smoothing(grey, sigma)
    else:
        smooth = np.stack([gaussian_smoothing(section, sigma) for section in grey])
    return np.stack([np.clip(smooth, 0, 1)] * 3)


def baseline_recipe(*, isotropic: bool) -> Recipe:
    """Returns the baseline's recipe: fragments in 3D where voxels are isotropic, else in each section."""
    return Recipe(fragments=FragmentParameters(kind="3d" if isotropic else "2d", seed_distance=4), scorer="q50_max")
